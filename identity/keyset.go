package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/MicahParks/jwkset"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
)

const (
	algHS256 = "HS256"
	algEdDSA = "EdDSA"
	algES256 = "ES256"
	algRS256 = "RS256"
)

// RSA keys below can be broken, those above make every check expensive; in bits.
const (
	rsaMinBits = 2048
	rsaMaxBits = 8192
)

// keySet is a JWKS as far as it can verify tokens. It never changes.
type keySet struct {
	keys []publicKey
	byID map[string][]publicKey // RFC 7517 lets keys of different types share a kid
	// sum is of all that verifies, in any order: sets of the same sum accept the same tokens.
	sum [sha256.Size]byte
}

type publicKey struct {
	id     string // kid, or ""
	alg    string // the one algorithm of tokens that it verifies
	public any    // as golang-jwt wants it
}

// parseKeySet reads a JWKS of at most keysMax keys. Keys that cannot verify our tokens are left out,
// each with its reason; an empty set is one.
func parseKeySet(b []byte, keysMax int) (set *keySet, leftOut []error, err error) {
	var jwks struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(b, &jwks); err != nil {
		return nil, nil, errors.New("is not a JWKS: it must be a JSON object without names that occur twice")
	}
	switch {
	case jwks.Keys == nil:
		return nil, nil, errors.New("is not a JWKS: it has no list of keys")
	case len(jwks.Keys) > keysMax:
		return nil, nil, fmt.Errorf("has %d keys, more than %d", len(jwks.Keys), keysMax)
	}
	set = &keySet{byID: map[string][]publicKey{}}
	var sums [][]byte
	for i, raw := range jwks.Keys {
		k, err := parseKey(raw)
		if err != nil {
			leftOut = append(leftOut, fmt.Errorf("key %d, kid %.40q: %w", i, k.id, err))
			continue
		}
		sum, err := k.sum()
		if err != nil {
			leftOut = append(leftOut, fmt.Errorf("key %d, kid %.40q: %w", i, k.id, err))
			continue
		}
		set.keys = append(set.keys, k)
		set.byID[k.id] = append(set.byID[k.id], k)
		sums = append(sums, sum)
	}
	slices.SortFunc(sums, bytes.Compare)
	set.sum = sha256.Sum256(bytes.Join(sums, nil))
	return set, leftOut, nil
}

func parseKey(raw jsontext.Value) (k publicKey, err error) {
	var m jwkset.JWKMarshal
	if err := json.Unmarshal(raw, &m); err != nil {
		return k, errors.New("its members have other types than those of a key")
	}
	k.id = m.KID
	switch {
	case m.USE != "" && m.USE != jwkset.UseSig:
		return k, fmt.Errorf("its use is %.40q, not sig", m.USE)
	case len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify):
		return k, errors.New("its key_ops do not have verify")
	}
	// Certificates say nothing more than the key. jwkset's own validation panics on a coordinate
	// that is longer than its curve, so ours stands in for it.
	m.X5C, m.X5U = nil, ""
	jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{SkipAll: true})
	if err != nil {
		return k, errors.New("it is of a kind that is not accepted, or incomplete")
	}
	if k.alg, err = algorithmOf(jwk.Key()); err != nil {
		return k, err
	}
	// RFC 9864 has a name of its own for what EdDSA means with this curve.
	if a := string(m.ALG); a != "" && a != k.alg && (a != "Ed25519" || k.alg != algEdDSA) {
		return k, fmt.Errorf("its alg is %.40q, not %s", a, k.alg)
	}
	k.public = jwk.Key()
	return k, nil
}

// algorithmOf returns the algorithm that a public key is for.
func algorithmOf(public any) (string, error) {
	switch p := public.(type) {
	case ed25519.PublicKey:
		return algEdDSA, nil
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() {
			return "", errors.New("its curve is not P-256")
		}
		if _, err := p.ECDH(); err != nil {
			return "", errors.New("it is not a point of its curve")
		}
		return algES256, nil
	case *rsa.PublicKey:
		if n := p.N.BitLen(); n < rsaMinBits || n > rsaMaxBits {
			return "", fmt.Errorf("it has %d bits, not %d to %d", n, rsaMinBits, rsaMaxBits)
		}
		if p.N.Bit(0) == 0 || p.E < 3 || p.E > 1<<31-1 || p.E%2 == 0 {
			return "", errors.New("its modulus or exponent is of no RSA key")
		}
		return algRS256, nil
	}
	return "", errors.New("it is of a kind that is not accepted")
}

func (k *publicKey) sum() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.public)
	if err != nil {
		return nil, errors.New("it cannot be written as a public key")
	}
	b := binary.AppendUvarint(nil, uint64(len(k.id)))
	b = append(b, k.id...)
	sum := sha256.Sum256(append(b, der...))
	return sum[:], nil
}

// fitting returns the keys that may have signed a token with this algorithm: those of its kid, or
// without one ("") of all; the first most of them. errUnknownKey or errUnfitKey without any.
func (s *keySet) fitting(alg, id string, most int) ([]jwt.VerificationKey, error) {
	from := s.keys
	if id != "" {
		from = s.byID[id]
	}
	var keys []jwt.VerificationKey
	for _, k := range from {
		if k.alg == alg && len(keys) < most {
			keys = append(keys, k.public)
		}
	}
	switch {
	case len(keys) > 0:
		return keys, nil
	case len(from) > 0 && id != "":
		return nil, errUnfitKey
	}
	return nil, errUnknownKey
}
