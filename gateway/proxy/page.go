package proxy

import (
	"fmt"
	"html"
	"net/http"
	"strconv"
	"time"
)

const pageForm = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%[1]s</title>
<style>body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem;color:#222;background:#fff}</style>
</head>
<body>
<main><h1>%[1]s</h1><p>%[2]s</p></main>
</body>
</html>
`

// page answers with a few plain words; title and text are not HTML.
func page(w http.ResponseWriter, status int, title, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.WriteHeader(status)
	fmt.Fprintf(w, pageForm, html.EscapeString(title), html.EscapeString(text))
}

// wait tells visitors that a module will be back, and their browsers to ask again.
func wait(w http.ResponseWriter, status int, module string) {
	w.Header().Set("Retry-After", "5")
	w.Header().Set("Refresh", "5")
	if module == "" {
		module = "This page"
	}
	page(w, status, "One moment, please", module+" is not ready yet. This page tries again by itself.")
}

// tooMany asks a client to come less often.
func tooMany(w http.ResponseWriter, again time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int(again/time.Second)+1))
	page(w, http.StatusTooManyRequests, "Too many requests", "Please wait a moment, then load this page again.")
}

func tooLarge(w http.ResponseWriter) {
	page(w, http.StatusRequestEntityTooLarge, "This is too large", "Less can be sent at once here. Try it with a smaller file.")
}
