// A certificate signing request (PKCS #10, RFC 2986) in DER. Node has no function for it; the same as
//   openssl req -new -key key.pem -subj "/CN=anju client" -outform DER
// except that the subject is empty: the register gives terminals their names.
import { createPublicKey, sign } from 'node:crypto'

function der(tag, ...parts) {
  const content = Buffer.concat(parts)
  const length = []
  for (let rest = content.length; rest > 0; rest >>>= 8) length.unshift(rest & 0xff)
  const head = content.length < 0x80 ? [content.length] : [0x80 | length.length, ...length]
  return Buffer.concat([Buffer.from([tag, ...head]), content])
}

const SEQUENCE = 0x30
const ECDSA_WITH_SHA256 = der(SEQUENCE, der(0x06, Buffer.from('2a8648ce3d040302', 'hex')))

/** The request of an elliptic curve key (P-256 or P-384, a KeyObject): a Buffer. */
export function signingRequest(key) {
  const info = der(
    SEQUENCE,
    der(0x02, Buffer.from([0])), // version 1
    der(SEQUENCE), // subject: nothing
    createPublicKey(key).export({ type: 'spki', format: 'der' }),
    der(0xa0), // attributes: none
  )
  const signature = sign('sha256', info, key)
  return der(SEQUENCE, info, ECDSA_WITH_SHA256, der(0x03, Buffer.from([0]), signature))
}
