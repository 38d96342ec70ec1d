// Package identity says which customer a token speaks for: a JWT that the storefront signs, with a
// shared secret (HS256) or with a private key whose public half is in a JWKS (EdDSA, ES256, RS256).
//
// options.go has every limit. verifier.go checks a token, claims.go reads what it says, invalid.go
// has the reasons to refuse one. cache.go remembers what was verified. keyset.go holds the keys of a
// JWKS, source.go reads it from a file or a URL, rotation.go reads it again.
//
// golang-jwt checks signatures and times and jwkset reads a key. Choosing the key and keeping the
// set is done here: keyfunc, made for it, reads without a limit, tries a token without kid on every
// key whatever its use, lets one unreadable key fail the whole set, and cannot say that the set has
// changed, which the cache must know.
package identity
