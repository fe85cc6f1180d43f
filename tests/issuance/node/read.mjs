// Reads permits with @auth0/cose: JSON lines of {text, alg, key} in, what it found out.
import { inflateSync } from "node:zlib";
import { createInterface } from "node:readline";
import { createPublicKey } from "node:crypto";
import { Sign1 } from "@auth0/cose";
import { decode } from "cbor-x";

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:";

function base45(text) {
  const values = [...text].map((digit) => DIGITS.indexOf(digit));
  const bytes = [];
  for (let at = 0; at < values.length; at += 3) {
    const [low, middle, high] = values.slice(at, at + 3);
    const number = low + 45 * middle + (high === undefined ? 0 : 2025 * high);
    if (high !== undefined) bytes.push(number >> 8);
    bytes.push(number & 255);
  }
  return Buffer.from(bytes);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { text, key } = JSON.parse(line);
  const der = Buffer.from(key, "hex");
  let answer;
  try {
    const message = Sign1.decode(inflateSync(base45(text)));
    await message.verify(createPublicKey({ key: der, format: "der", type: "spki" }));
    const claims = decode(message.payload);
    const get = (map, name) => (map instanceof Map ? map.get(name) : map[name]);
    const attributes = get(claims, 169);
    const face = get(attributes, 62);
    answer = {
      verified: true,
      issuer: get(claims, 1),
      expires: Number(get(claims, 4)),
      name: get(attributes, 4),
      born: get(attributes, 8),
      gender: get(attributes, 9),
      photo: face ? Buffer.from(get(face[0], 0)).toString("hex") : null,
    };
  } catch (error) {
    answer = { verified: false, error: error.constructor.name };
  }
  console.log(JSON.stringify(answer));
}
