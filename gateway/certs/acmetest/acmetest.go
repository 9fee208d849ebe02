// Package acmetest is for tests that stand between the box and an ACME authority.
package acmetest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
)

// Payload is what a request to the authority says: the payload of its JWS (RFC 8555, section 6.2), nil if it has none. The
// request's body can be read again.
func Payload(r *http.Request) []byte {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var signed struct{ Payload string }
	if err != nil || json.Unmarshal(body, &signed) != nil {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(signed.Payload)
	if err != nil {
		return nil
	}
	return payload
}
