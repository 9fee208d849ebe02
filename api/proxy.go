package api

import (
	"encoding/json"
	"net/http"
	"net/http/httputil"
)

// ProxyServer returns a server that passes requests on to the box that the client reaches, so that many can share a port
// that has one client at a time. Whoever can connect to it has the client's access.
func ProxyServer(c *Client) *http.Server {
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "box"
		},
		Transport:     c.http.Transport,
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadGateway)
			json.NewEncoder(w).Encode(Errorf(Internal, "cannot reach the box: %v", err))
		},
	}
	s := &http.Server{Handler: p, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}
