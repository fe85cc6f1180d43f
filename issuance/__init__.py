"""What do we sign, and does it still stand?

A permit is an IANA/MOSIP Claim 169 CWT in a COSE_Sign1, compressed and written as a QR symbol, so
that anybody's verifier reads it. What that standard leaves out is done here: which keys sign, which
of them are trusted today, which permits no longer stand, and how a verifier without a network
knows.

The verifier half (`verifier`, `trust`, `codec`, `signing`, `status_list`, `qr`, `cli`) needs only
the base dependencies. The issuer half adds files on a disk (`keys`, `journal`, `issuer`) and
`card`, whose PDF output alone needs reportlab.

Options rejected:

* The `cwt` or `pycose` libraries for verification. Both accept an unknown `crit` header and
  duplicate map keys, and `cbor2` builds Python objects out of any tag. A reader of 100 lines that
  knows none of that (`cbor`) leaves less to defend.
* Binary deltas (bsdiff and the like) of bundles. A compressed list changes from end to end when one
  entry does, and the tokens are signed anew each time: nothing is left to be equal.
* A face detector for portraits, see `photo`.
* X.509 chains in the symbol. A chain costs several hundred bytes of symbol and says nothing about
  rollback or freshness; TUF metadata does, and travels in the trust bundle.
* Random status indexes drawn against a table of used ones. A keyed permutation of a counter never
  repeats by construction, needs no table, and survives the loss of the journal because it can be
  inverted.
"""
