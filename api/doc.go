// Package api is how others talk to the box: the types that go over the wire, the table of all routes with who may use
// them, and a client. It is JSON over HTTP; what streams is one JSON object on a line. docs/formats/api.md describes it.
package api

// PortName is the name of the virtio console port by which whoever runs the hypervisor reaches the API.
const PortName = "org.allotment.api"
