// A capture terminal in one small program, for vendors to read and take from.
//
//   node terminal.mjs provision HOST:7444 DIRECTORY [HOST:7443]   the token on standard input
//   node terminal.mjs login DIRECTORY OPERATOR KEY.pem
//   node terminal.mjs enrol DIRECTORY application.json right-index.iso …   kept, then sent
//   node terminal.mjs send DIRECTORY                       whatever is still kept
//   node terminal.mjs heartbeat DIRECTORY
//   node terminal.mjs renew DIRECTORY
//   node terminal.mjs upload DIRECTORY portrait.png
//
// DIRECTORY has the same files as that of anju's own terminals, so that `anju terminal check --as`
// can look at it. Each command prints one line of JSON; exit code 0, 1 refused, 75 try again later.
import { createPrivateKey, generateKeyPairSync, randomUUID, X509Certificate } from 'node:crypto'
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import * as anju from './anju.mjs'

const LATER = 75 // EX_TEMPFAIL of sysexits.h

/** Readers see the old content or the new, also after the power failed. */
function store(path, content) {
  const draft = `${path}.new`
  const file = openSync(draft, 'w', 0o600)
  writeSync(file, content)
  fsyncSync(file)
  closeSync(file)
  renameSync(draft, path)
  const folder = openSync(dirname(path), 'r')
  fsyncSync(folder)
  closeSync(folder)
}

const text = (directory, name) => readFileSync(join(directory, name), 'utf8')
const own = (directory) => ({
  key: text(directory, 'key.pem'),
  certificate: text(directory, 'certificate.pem'),
  ca: text(directory, 'ca.pem'),
  address: text(directory, 'server').trim(),
})

async function connected(directory, work) {
  const client = anju.channel(own(directory))
  try {
    return await work(client)
  } finally {
    client.close()
  }
}

/** The id that the certificate carries: anju://terminal/<station>/<terminal>. */
function terminalId(directory) {
  const names = new X509Certificate(text(directory, 'certificate.pem')).subjectAltName
  return names.match(/anju:\/\/terminal\/[a-z0-9-]+\/([a-z0-9-]+)/)[1]
}

async function provision(address, directory, main) {
  const token = readFileSync(0, 'utf8').trim()
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const keyFile = join(directory, 'key.pem')
  if (!existsSync(keyFile)) { // a repeated attempt must have the same key: the token is bound to it
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    store(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }))
  }
  const key = createPrivateKey(readFileSync(keyFile))
  const { certificate, ca, terminal_id, station_id } = await anju.provision(address, token, key)
  const [, host, port] = address.match(/^(.*):(\d+)$/)
  store(join(directory, 'server'), `${main ?? `${host}:${port - 1}`}\n`)
  store(join(directory, 'ca.pem'), ca)
  store(join(directory, 'certificate.pem'), certificate) // last: complete once it is there
  return { terminal_id, station_id }
}

async function login(directory, operator, keyFile) {
  const loginKey = createPrivateKey(readFileSync(keyFile))
  const session = await connected(directory, (client) => anju.logIn(client, terminalId(directory), operator, loginKey))
  store(join(directory, 'node-session.json'), JSON.stringify(session))
  return { operator, session_id: session.sessionId }
}

function keep(directory, applicationFile, ...records) {
  const session = JSON.parse(text(directory, 'node-session.json'))
  const application = {
    ...JSON.parse(readFileSync(applicationFile, 'utf8')),
    idempotency_key: randomUUID(),
    captured_at: { seconds: Math.trunc(Date.now() / 1000) },
    samples: records.map((file) => ({ format: 'SAMPLE_FORMAT_ISO_19794_2_2005', data: readFileSync(file) })),
  }
  const { request, proof } = anju.vouched(session, createPrivateKey(session.key), application)
  mkdirSync(join(directory, 'kept'), { recursive: true, mode: 0o700 })
  // Not encrypted, which a real terminal's queue should be.
  const entry = { request: request.toString('base64'), proof: proof.toString('base64') }
  store(join(directory, 'kept', `${Date.now()}-${application.idempotency_key}.json`), JSON.stringify(entry))
}

async function send(directory) {
  const folder = join(directory, 'kept')
  const sent = []
  let refusal = null
  for (const name of existsSync(folder) ? readdirSync(folder).filter((one) => one.endsWith('.json')).sort() : []) {
    const entry = JSON.parse(text(folder, name))
    const { request, proof } = { request: Buffer.from(entry.request, 'base64'), proof: Buffer.from(entry.proof, 'base64') }
    const withinS = Number(process.env.ANJU_WITHIN_S ?? 60)
    try {
      const { application_id, state } = await connected(directory, (client) => anju.enrol(client, { request, proof }, { withinS }))
      rmSync(join(folder, name)) // acknowledged: only now may it be forgotten
      sent.push({ application_id, state })
    } catch (error) {
      if (!(error instanceof anju.Refused) || error.passing || error.afterHelp) throw error // it stays
      renameSync(join(folder, name), join(folder, `${basename(name, '.json')}.refused`))
      refusal ??= error // said once the others have been sent
    }
  }
  if (refusal) throw refusal
  return { sent }
}

const COMMANDS = {
  provision,
  login,
  send,
  enrol: (directory, ...files) => (keep(directory, ...files), send(directory)),
  heartbeat: async (directory) => ({
    clock_ahead_s: await connected(directory, (client) =>
      anju.heartbeat(client, { software_version: 'example 1.0', template_formats: ['iso-19794-2-2005'] })),
  }),
  renew: async (directory) => {
    const key = createPrivateKey(text(directory, 'key.pem'))
    const certificate = await connected(directory, (client) => anju.renew(client, key))
    store(join(directory, 'certificate.pem'), certificate)
    return { valid_to: new X509Certificate(certificate).validTo }
  },
  upload: async (directory, file) => {
    await connected(directory, (client) => anju.upload(client, readFileSync(file)))
    return { uploaded: file }
  },
}

const [command, ...rest] = process.argv.slice(2)
if (!Object.hasOwn(COMMANDS, command ?? '')) {
  console.error(`one of ${Object.keys(COMMANDS).join(', ')}`)
  process.exit(2)
}
try {
  console.log(JSON.stringify(await COMMANDS[command](...rest)))
} catch (error) {
  console.error(error.message)
  process.exitCode = error.passing ? LATER : 1
}
