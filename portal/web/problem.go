package web

import (
	"errors"
	"fmt"
	"net/http"

	"allotment/portal/directory"
)

// Problem is an error that the visitor is told in her own words: what happened, and what she can do.
type Problem struct {
	Status int    // of HTTP
	Key    string // of the message
	Args   []any
	Err    error // for the log; nil: nothing of note
}

// Error is for the log.
func (p *Problem) Error() string {
	if p.Err == nil {
		return p.Key
	}
	return fmt.Sprintf("%s: %v", p.Key, p.Err)
}

// Unwrap is the error behind.
func (p *Problem) Unwrap() error { return p.Err }

// Fail is a problem with a status of HTTP, told by a message.
func Fail(status int, key string, args ...any) error {
	return &Problem{Status: status, Key: key, Args: args}
}

// What several pages answer.
var (
	ErrNotFound  = &Problem{Status: http.StatusNotFound, Key: "problem.missing"}
	ErrForbidden = &Problem{Status: http.StatusForbidden, Key: "problem.forbidden"}
)

// problemOf makes a problem of any error.
func problemOf(err error) *Problem {
	var p *Problem
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &large):
		return &Problem{Status: http.StatusRequestEntityTooLarge, Key: "problem.large", Err: err}
	case errors.Is(err, directory.ErrNotFound), errors.Is(err, directory.ErrName):
		return &Problem{Status: http.StatusNotFound, Key: "problem.missing", Err: err}
	case errors.Is(err, directory.ErrUnavailable):
		return &Problem{Status: http.StatusServiceUnavailable, Key: "problem.directory", Err: err}
	}
	return &Problem{Status: http.StatusInternalServerError, Key: "problem.ours", Err: err}
}

// fail writes the page of an error.
func (r *Request) fail(err error) {
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError {
		r.Log.Error("cannot answer", "method", r.HTTP.Method, "path", r.HTTP.URL.Path, "error", p)
	}
	if p.Status == http.StatusServiceUnavailable {
		r.W.Header().Set("Retry-After", "30")
	}
	r.Status = p.Status
	if err := r.Render("problem", r.html(p.Key, p.Args...)); err != nil {
		r.Log.Error("cannot render", "page", "problem", "error", err)
		http.Error(r.W, http.StatusText(p.Status), p.Status)
	}
}
