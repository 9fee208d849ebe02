package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
)

//go:embed pages messages assets
var own embed.FS

// assetPath is the address of a file of assets; it changes with the file, so that browsers can keep it for good.
func assetPath(name string) (string, error) {
	b, err := own.ReadFile("assets/" + name)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return "/portal/assets/" + name + "?v=" + hex.EncodeToString(sum[:6]), nil
}

// mediaTypes of assets by ending; others are not served.
var mediaTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

// asset serves a file of assets.
func asset(r *Request) error {
	name := r.Path("name")
	mediaType := mediaTypes[path.Ext(name)]
	b, err := own.ReadFile("assets/" + path.Base(name))
	if err != nil || mediaType == "" {
		return ErrNotFound
	}
	h := r.W.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	if r.HTTP.URL.Query().Get("v") == "" {
		h.Set("Cache-Control", "no-cache")
	}
	h.Del("Set-Cookie")
	_, err = r.W.Write(b)
	return err
}

// health says that the portal answers.
func health(r *Request) error {
	r.W.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := r.W.Write([]byte("ok\n"))
	return err
}

// setLanguage keeps the choice of a language in this browser.
func setLanguage(r *Request) error {
	tag := r.Form.Choice("language", r.Languages()...)
	if tag == "" {
		return Fail(http.StatusBadRequest, "form.choice")
	}
	c := r.site.cookie(languageCookie, tag, 365*24*3600)
	c.Name = languageCookie
	http.SetCookie(r.W, c)
	return r.Redirect(r.To("/portal/"))
}
