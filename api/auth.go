package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
)

// key says who may use a route.
type key int

const (
	keyNone    key = iota // everybody
	keyAPI                // holders of Config.APIKey
	keyPage               // the same, and browsers are told to ask for it
	keyProfile            // holders of Config.ProfileKey, or of Config.APIKey if there is none
)

// authorize wraps the handler of a route that needs a key. A key that is not configured is not asked for.
func (s *Server) authorize(r route) echo.HandlerFunc {
	want := s.wantedKey(r)
	if want == "" {
		return r.handler
	}
	challenge := `Bearer realm="omni"`
	if r.key == keyPage {
		challenge = `Basic realm="omni: any name, the API key as password", charset="UTF-8"`
	}
	sum := sha256.Sum256([]byte(want))
	return func(c echo.Context) error {
		got := presented(c.Request())
		// Sums are of one length, so the comparison tells nothing of the key's either.
		gotSum := sha256.Sum256([]byte(got))
		if subtle.ConstantTimeCompare(gotSum[:], sum[:]) == 1 {
			return r.handler(c)
		}
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, challenge)
		switch {
		case got == "":
			return fail(codeUnauthorized, "this route needs a key: send the header Authorization: Bearer KEY")
		case r.key == keyProfile && s.cfg.ProfileKey != "":
			return fail(codeUnauthorized, "the key is not the one for profile control")
		}
		return fail(codeUnauthorized, "the key is not the right one")
	}
}

// wantedKey is the key that a route needs, empty for none.
func (s *Server) wantedKey(r route) string {
	switch {
	case r.key == keyNone:
		return ""
	case r.key == keyProfile && s.cfg.ProfileKey != "":
		return s.cfg.ProfileKey
	}
	return s.cfg.APIKey
}

// presented is the key that a request comes with: as a bearer token, or as a password by which browsers send it.
func presented(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	scheme, token, _ := strings.Cut(r.Header.Get(echo.HeaderAuthorization), " ")
	if strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return ""
}
