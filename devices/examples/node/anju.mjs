// What a capture terminal says to the register, from the same .proto files as everybody.
// ../../CONNECTING.md has the rules; each function here is one of its sections.
import { createHash, generateKeyPairSync, randomUUID, sign, X509Certificate } from 'node:crypto'
import { connect as connectTls, createSecureContext } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import grpc from '@grpc/grpc-js'
import loader from '@grpc/proto-loader'
import { signingRequest } from './csr.mjs'

const HERE = fileURLToPath(new URL('.', import.meta.url))
const PROTOS = fileURLToPath(new URL('../../../proto', import.meta.url))
const SERVER_NAME = 'server.anju.internal' // in every register's certificate, whatever its address
const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'

const types = loader.loadSync(
  ['terminals', 'operators', 'enrolment'].map((name) => `anju/v1/${name}.proto`).concat('google-rpc.proto'),
  { includeDirs: [PROTOS, HERE], keepCase: true, longs: String, enums: String, defaults: true },
)

// -- The provisioning token ------------------------------------------------------------------------

/** 20 symbols: the first 100 bits of SHA-256 over a SubjectPublicKeyInfo (DER). */
export function fingerprint(spki) {
  return head(spki, 20)
}

function head(data, symbols) {
  const bits = BigInt(`0x${createHash('sha256').update(data).digest('hex')}`) >> BigInt(256 - 5 * symbols)
  return Array.from({ length: symbols }, (_, i) => ALPHABET[Number((bits >> BigInt(5 * (symbols - 1 - i))) & 31n)]).join('')
}

/** The fingerprint in a token as typed. Throws where it is mistyped: nothing has been sent then. */
export function fingerprintInToken(typed) {
  const symbols = typed.normalize('NFKC').toUpperCase().replace(/[\s-]/g, '').replace(/O/g, '0').replace(/[IL]/g, '1')
  if (symbols.length !== 40 || head(symbols.slice(0, 36), 4) !== symbols.slice(36)) {
    throw new Error('the token is mistyped: compare it group by group')
  }
  return symbols.slice(16, 36)
}

// -- Connections -----------------------------------------------------------------------------------

const OPTIONS = {
  'grpc.ssl_target_name_override': SERVER_NAME,
  'grpc.enable_http_proxy': 0,
}

/** The server's certificate, if its key has that fingerprint. Nothing is sent to it. */
function pinnedCertificate(address, expected) {
  const [, host, port] = address.match(/^(.*):(\d+)$/)
  return new Promise((resolve, reject) => {
    const socket = connectTls(
      { host, port, servername: SERVER_NAME, minVersion: 'TLSv1.3', rejectUnauthorized: false, ALPNProtocols: ['h2'] },
      () => {
        const certificate = new X509Certificate(socket.getPeerCertificate().raw)
        socket.destroy()
        const found = fingerprint(certificate.publicKey.export({ type: 'spki', format: 'der' }))
        if (found === expected) resolve(certificate)
        else reject(new Error('the server is not the one this token was made by; nothing was sent to it'))
      },
    )
    socket.setTimeout(15_000, () => socket.destroy(new Error(`no answer from ${address}`)))
    socket.on('error', reject)
  })
}

/** To the holder of exactly that certificate: it is the only one that is trusted. */
function pinnedChannel(address, certificate) {
  const context = createSecureContext({ ca: certificate.toString(), allowPartialTrustChain: true, minVersion: 'TLSv1.3' })
  return new grpc.Client(address, grpc.credentials.createFromSecureContext(context), OPTIONS)
}

/** Mutual TLS. `own` has key, certificate and ca (PEM), and the server's address. */
export function channel(own) {
  const pem = (text) => Buffer.from(text)
  const credentials = grpc.credentials.createSsl(pem(own.ca), pem(own.key), pem(own.certificate))
  return new grpc.Client(own.address, credentials, OPTIONS)
}

// -- Calls, refusals, trying again -----------------------------------------------------------------

/** How a call failed: status (e.g. 'NOT_FOUND'), anju's reason (empty if somebody else refused). */
export class Refused extends Error {
  constructor(error) {
    const { reason, retryAfterS } = told(error)
    const status = grpc.status[error.code] ?? 'UNKNOWN'
    super(`${error.details} (${status}${reason && `/${reason}`})`)
    Object.assign(this, { status, reason, retryAfterS })
  }

  /** Whether the very same call may succeed later. With an idempotency key it is made only once. */
  get passing() {
    if (['UNAVAILABLE', 'DEADLINE_EXCEEDED', 'CANCELLED', 'ABORTED'].includes(this.status)) return true
    if (['MESSAGE_UNFINISHED', 'MESSAGE_LATE'].includes(this.reason)) return true
    return this.status === 'RESOURCE_EXHAUSTED' && this.reason !== ''
  }

  /** Whether it was refused for who sent it, or for a picture that is not there: not for what it says. */
  get afterHelp() {
    return ['PERMISSION_DENIED', 'UNAUTHENTICATED'].includes(this.status) || this.reason === 'UPLOAD_MISSING'
  }
}

function told(error) {
  const [packed] = error.metadata?.get('grpc-status-details-bin') ?? []
  let reason = ''
  let retryAfterS = 0
  for (const { type_url: type, value } of packed ? types['google.rpc.Status'].deserialize(packed).details : []) {
    if (type.endsWith('/google.rpc.ErrorInfo')) {
      const info = types['google.rpc.ErrorInfo'].deserialize(value)
      if (info.domain === 'anju') reason = info.reason
    } else if (type.endsWith('/google.rpc.RetryInfo')) {
      const { seconds, nanos } = types['google.rpc.RetryInfo'].deserialize(value).retry_delay ?? { seconds: 0, nanos: 0 }
      retryAfterS = Number(seconds) + nanos / 1e9
    }
  }
  return { reason, retryAfterS }
}

/** One attempt. `request` is an object, or the bytes of one. */
export function once(client, service, method, request, { metadata = {}, deadlineS = 30 } = {}) {
  const { path, requestSerialize, responseDeserialize } = types[`anju.v1.${service}`][method]
  const serialize = (value) => (Buffer.isBuffer(value) ? value : requestSerialize(value))
  const sent = new grpc.Metadata()
  for (const [name, value] of Object.entries(metadata)) sent.set(name, value)
  const deadline = Date.now() + 1000 * deadlineS
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, serialize, responseDeserialize, request, sent, { deadline }, (error, answer) =>
      error ? reject(new Refused(error)) : resolve(answer),
    )
  })
}

/** Tries again, with the same request, until `withinS` seconds have passed: full jitter, doubling. */
export async function call(client, service, method, request, { withinS = 60, attemptS = 15, ...rest } = {}) {
  const end = Date.now() + 1000 * withinS
  for (let bound = 1; ; bound = Math.min(2 * bound, 120)) {
    const left = (end - Date.now()) / 1000
    try {
      return await once(client, service, method, request, { ...rest, deadlineS: Math.min(attemptS, left) })
    } catch (error) {
      const waitS = Math.random() * bound + (error.retryAfterS ?? 0)
      if (!error.passing || Date.now() + 1000 * waitS >= end) throw error
      await sleep(1000 * waitS)
    }
  }
}

// -- A terminal's life -----------------------------------------------------------------------------

/** Token and key (KeyObject, P-256 or P-384) -> {certificate, ca, terminal_id, station_id}. */
export async function provision(address, token, key) {
  const leaf = await pinnedCertificate(address, fingerprintInToken(token))
  const client = pinnedChannel(address, leaf)
  try {
    const request = { token, certificate_signing_request: signingRequest(key) }
    const answer = await call(client, 'TerminalService', 'Provision', request)
    const [certificate, ca] = [answer.certificate, answer.ca_certificate].map((one) => new X509Certificate(one))
    if (!leaf.checkIssued(ca) || !leaf.verify(ca.publicKey)) throw new Error('that authority is not the server’s own')
    if (!certificate.checkPrivateKey(key)) throw new Error('that certificate is for another key')
    return { ...answer, certificate: certificate.toString(), ca: ca.toString() }
  } finally {
    client.close()
  }
}

/** A later certificate (PEM) for the same key. */
export async function renew(client, key) {
  const request = { idempotency_key: randomUUID(), certificate_signing_request: signingRequest(key) }
  const { certificate } = await call(client, 'TerminalService', 'RenewCertificate', request)
  return new X509Certificate(certificate).toString()
}

/** Reports `equipment`; returns by how many seconds this machine's clock is ahead. */
export async function heartbeat(client, equipment) {
  const { server_time: theirs } = await call(client, 'TerminalService', 'Heartbeat', { equipment })
  return Date.now() / 1000 - Number(theirs.seconds) - theirs.nanos / 1e9
}

export const signed = (key, text) => sign(key.asymmetricKeyType === 'ed25519' ? null : 'sha256', Buffer.from(text), key)
const sha256 = (data) => createHash('sha256').update(data).digest('hex')
const micros = ({ seconds, nanos }) => BigInt(seconds) * 1_000_000n + BigInt(Math.trunc(nanos / 1000))

/** What an operator's login key signs. */
export function loginText(operator, terminal, challenge, sessionKey) {
  return ['anju operator login v1', operator, terminal, challenge.toString('hex'), sha256(sessionKey)].join('\n')
}

/** What a session's key signs for one request; `at` in microseconds since 1970. */
export function captureText(sessionId, method, at, request) {
  return ['anju capture proof v1', sessionId, method, at, sha256(request)].join('\n')
}

/** Logs an operator in by key (KeyObject): what is needed to sign until the session ends. */
export async function logIn(client, terminal, operator, loginKey) {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const sessionKey = publicKey.export({ type: 'spki', format: 'der' })
  const { challenge } = await call(client, 'OperatorService', 'GetLoginChallenge', { operator_id: operator })
  const signature = signed(loginKey, loginText(operator, terminal, challenge, sessionKey))
  const request = { operator_id: operator, key: { challenge, signature }, session_key: sessionKey }
  const answer = await call(client, 'OperatorService', 'LogIn', request)
  return {
    sessionId: answer.session_id,
    token: answer.token,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    openedAt: String(micros(answer.opened_at)),
    expiresAt: String(micros(answer.expires_at)),
    idleS: Number(answer.idle_timeout_s),
    begun: Date.now(), // by this machine's clock, which may be wrong but runs
  }
}

/** An enrolment's bytes and the operator's word for them: keep both, send them as they are. */
export function vouched(session, sessionKey, application) {
  const request = types['anju.v1.EnrolmentService'].Enrol.requestSerialize(application)
  const at = BigInt(session.openedAt) + BigInt(Math.max(0, Date.now() - session.begun)) * 1000n
  if (at >= BigInt(session.expiresAt)) throw new Error('the session is over: log in again')
  const proof = types['anju.v1.CaptureProof'].serialize({
    session_id: session.sessionId,
    signed_at: { seconds: String(at / 1_000_000n), nanos: Number(at % 1_000_000n) * 1000 },
    signature: signed(sessionKey, captureText(session.sessionId, 'EnrolmentService.Enrol', at, request)),
  })
  return { request, proof: Buffer.from(proof) }
}

/** Sends what `vouched` made; repeating it enrols nobody twice. */
export async function enrol(client, { request, proof }, options = {}) {
  const metadata = { 'anju-capture-proof-bin': proof }
  return (await call(client, 'EnrolmentService', 'Enrol', request, { ...options, metadata })).application
}

/** Makes the register have these bytes (a portrait, say), going on where an earlier attempt was cut. */
export async function upload(client, content) {
  const digest = createHash('sha256').update(content).digest()
  const { received, complete } = await call(client, 'EnrolmentService', 'GetUpload', { sha256: digest })
  if (complete) return
  const { path, requestSerialize, responseDeserialize } = types['anju.v1.EnrolmentService'].Upload
  await new Promise((resolve, reject) => {
    const deadline = Date.now() + 60_000
    const stream = client.makeClientStreamRequest(
      path, requestSerialize, responseDeserialize, new grpc.Metadata(), { deadline },
      (error, answer) => (error ? reject(new Refused(error)) : resolve(answer)),
    )
    stream.write({ start: { sha256: digest, size: content.length, offset: received } })
    for (let at = Number(received); at < content.length; at += 65_536) {
      stream.write({ chunk: content.subarray(at, at + 65_536) })
    }
    stream.end()
  })
}

