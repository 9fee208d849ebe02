package api

import (
	"fmt"
	"net/http"
	"strings"
)

// Code says what kind of error it is.
type Code string

// The codes.
const (
	Invalid  Code = "invalid"   // the request cannot be understood, or a setting does not fit; see Faults
	Refused  Code = "refused"   // the caller may not
	NotFound Code = "not-found" // there is no such module, service, task, ...
	Conflict Code = "conflict"  // not in the state that the box is in
	Busy     Code = "busy"      // too much at once
	Internal Code = "internal"  // the box's own failure
)

// status are the HTTP statuses of the codes.
var status = map[Code]int{
	Invalid: http.StatusUnprocessableEntity, Refused: http.StatusForbidden, NotFound: http.StatusNotFound,
	Conflict: http.StatusConflict, Busy: http.StatusServiceUnavailable, Internal: http.StatusInternalServerError,
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
	if s, ok := status[e.Code]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// Is makes errors.Is find errors by their code: errors.Is(err, &Error{Code: NotFound}).
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Message == "" && t.Code == e.Code
}
