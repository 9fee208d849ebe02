package apiserver

import (
	"context"
	"net/http"

	"allotment/api"
)

// Machine is the part of a Box that is about the machine as a whole.
type Machine interface {
	Network() api.Network
	// Power stops everything in order; then the machine starts again, or is off. It returns when that has begun.
	Power(ctx context.Context, restart bool) error

	Claim() api.Claim
	// ClaimWrong counts a wrong claim code and tells it on the console.
	ClaimWrong(ctx context.Context) (api.Claim, error)
	// Claimed voids the claim code for good.
	Claimed(ctx context.Context) error
}

func (s *Server) power(restart bool) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		return done(w, s.config.Box.Power(r.Context(), restart))
	}
}

func (s *Server) claimWrong(w http.ResponseWriter, r *http.Request) error {
	c, err := s.config.Box.ClaimWrong(r.Context())
	if err != nil {
		return err
	}
	return answer(w, c)
}
