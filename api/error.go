package api

import (
	"fmt"
	"net/http"
	"strings"
)

// Code says what kind of error it is.
type Code string

// The codes, with their meaning in docs/formats/api.md.
const (
	Invalid  Code = "invalid"
	Refused  Code = "refused"
	NotFound Code = "not-found"
	Conflict Code = "conflict"
	Busy     Code = "busy"
	Internal Code = "internal"
)

// codes are all codes with the HTTP status that goes with each.
var codes = []struct {
	code   Code
	status int
	when   string
}{
	{Invalid, http.StatusUnprocessableEntity, "the request cannot be understood, or a setting does not fit"},
	{Refused, http.StatusForbidden, "the caller may not"},
	{NotFound, http.StatusNotFound, "there is no such module, service, task or route"},
	{Conflict, http.StatusConflict, "not in the state that the box is in"},
	{Busy, http.StatusServiceUnavailable, "too much at once"},
	{Internal, http.StatusInternalServerError, "the box failed"},
}

// Error is an answer that is not what was asked for. Message is for people.
type Error struct {
	Code    Code    `json:"code"`
	Message string  `json:"message"`
	Faults  []Fault `json:"faults,omitempty"`
}

// Fault is what is wrong with one field of a form.
type Fault struct {
	Field string `json:"field"`
	Text  string `json:"text"`
}

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Error implements error: the message, and a line for each fault.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	for _, f := range e.Faults {
		fmt.Fprintf(&b, "\n  %s: %s", f.Field, f.Text)
	}
	return b.String()
}

// Status is the HTTP status that goes with the code.
func (e *Error) Status() int {
	for _, c := range codes {
		if c.code == e.Code {
			return c.status
		}
	}
	return http.StatusInternalServerError
}

// Is makes errors.Is find errors by their code: errors.Is(err, &Error{Code: NotFound}).
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Message == "" && t.Code == e.Code
}
