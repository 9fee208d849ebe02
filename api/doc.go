// Package api is how others talk to the box: the types that go over the wire, the table of all routes with who may use
// them, and a client. It is JSON over HTTP; what streams is one JSON object on a line. docs/formats/api.md describes it.
package api
