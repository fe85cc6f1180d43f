// Keeps the page for when the server is gone. Nothing but the page: trust data is stored by the
// page itself, after it has been verified.
//
// Each build has a cache of its own, so page and worker always change together; a new build is
// taken in full or not at all.

const NAME = `anju-verify-${BUILD}`;
const PAGE = "verify.html";

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(NAME);
      await cache.add(new Request(PAGE, { cache: "reload" }));
      await self.skipWaiting();
    })(),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      const ours = (await caches.keys()).filter((name) => name.startsWith("anju-verify-"));
      await Promise.all(ours.filter((name) => name !== NAME).map((name) => caches.delete(name)));
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  const page = new URL(PAGE, self.registration.scope);
  const isPage = [page.pathname, new URL(self.registration.scope).pathname].includes(url.pathname);
  if (request.method !== "GET" || request.mode !== "navigate" || url.origin !== page.origin || !isPage) return;
  event.respondWith(
    (async () => (await (await caches.open(NAME)).match(page)) ?? fetch(request))(),
  );
});
