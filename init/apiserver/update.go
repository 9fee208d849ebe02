package apiserver

import (
	"net/http"

	"allotment/api"
)

func (s *Server) update(w http.ResponseWriter, _ *http.Request) error {
	u, err := s.config.Box.Update()
	if err != nil {
		return err
	}
	return answer(w, u)
}

func (s *Server) updateHistory(w http.ResponseWriter, _ *http.Request) error {
	all, err := s.config.Box.UpdateHistory()
	if err != nil {
		return err
	}
	return answer(w, all)
}

func (s *Server) patchUpdatePolicy(w http.ResponseWriter, r *http.Request) error {
	p, err := read[api.UpdatePolicy](r)
	if err != nil {
		return err
	}
	return done(w, s.config.Box.SetUpdatePolicy(p))
}

func (s *Server) goBack(w http.ResponseWriter, r *http.Request) error {
	confirmed, err := flag(r.URL.Query().Get("confirm"))
	if err != nil {
		return err
	}
	b, err := s.config.Box.GoBack(r.Context(), confirmed)
	if err != nil {
		return err
	}
	return answer(w, b)
}

func (s *Server) restartUpdate(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.config.Box.RestartUpdate(r.Context()))
}

func (s *Server) tidyUpdates(w http.ResponseWriter, _ *http.Request) error {
	return done(w, s.config.Box.TidyUpdates())
}
