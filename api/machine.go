package api

import (
	"context"
	"net/http"
	"time"
)

// ActorHeader names the member for whom the portal asks, so that what happened can be told with who did it.
const ActorHeader = "Allotment-Actor"

// actorKey is the key of the actor in a context.
type actorKey struct{}

// WithActor returns a context whose requests to a box are made for the named member.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// Actor is the member for whom a request is made; empty where nobody said.
func Actor(ctx context.Context) string {
	name, _ := ctx.Value(actorKey{}).(string)
	return name
}

// Network is how the box is reached, and what the domain name system should say of it.
type Network struct {
	Domain    string   `json:"domain"`    // of the organisation; allotment.internal if it has none yet
	Addresses []string `json:"addresses"` // of the box itself; those of a router in front of it are not known
	Servers   []string `json:"servers"`   // name servers that the box asks
	Names     []Name   `json:"names"`     // below the domain, the domain itself first
	Records   []Record `json:"records"`   // that modules need besides the addresses of these names

	// Issuer is by what CAA records (RFC 8659) name the authority that issues certificates; empty: that is not known.
	Issuer string `json:"issuer,omitempty"`

	// Certificates are those that browsers trust, and that are wanted; Authority is the SHA-256 fingerprint of the box's own
	// authority, by which visitors of other names and addresses can know the box. Empty before the gateway has told.
	Certificates []Certificate `json:"certificates,omitempty"`
	Authority    string        `json:"authority,omitempty"`
}

// Certificate is how it stands with one that browsers trust.
type Certificate struct {
	Names    []string  `json:"names"`
	Until    time.Time `json:"until,omitzero"` // it is good; zero: there is none yet
	Failures int       `json:"failures"`       // since the last success
	Why      string    `json:"why,omitempty"`  // after a failure: elsewhere, unreached, forbidden, often, away or refused
	Error    string    `json:"error,omitempty"`
	Again    time.Time `json:"again,omitzero"` // not tried before, after a failure
}

// Name is a host name that the box answers to.
type Name struct {
	Host   string `json:"host"`
	Module string `json:"module,omitempty"` // that wants it; empty: the box itself

	Optional bool `json:"optional,omitempty"` // the box works as well without it
}

// Record is one that a module needs in the organisation's zone.
type Record struct {
	Module string `json:"module"`
	Host   string `json:"host"`
	Type   string `json:"type"` // such as SRV
	Value  string `json:"value"`
	Why    string `json:"why,omitempty"`
}

// Claim is whether the box belongs to somebody, and how often that was tried with a wrong code.
type Claim struct {
	Claimed bool `json:"claimed"`
	Wrong   int  `json:"wrong"` // codes since boot
}

// Network asks how the box is reached.
func (c *Client) Network(ctx context.Context) (Network, error) {
	return get[Network](ctx, c, "/v1/network", nil)
}

// RestartBox stops everything in order and starts the machine again.
func (c *Client) RestartBox(ctx context.Context) error {
	return c.send(ctx, http.MethodPost, "/v1/power/restart", nil)
}

// PowerOff stops everything in order and switches the machine off.
func (c *Client) PowerOff(ctx context.Context) error {
	return c.send(ctx, http.MethodPost, "/v1/power/off", nil)
}

// Claim asks whether the box belongs to somebody.
func (c *Client) Claim(ctx context.Context) (Claim, error) {
	return get[Claim](ctx, c, "/v1/claim", nil)
}

// ClaimWrong tells the box that somebody entered a wrong code.
func (c *Client) ClaimWrong(ctx context.Context) (Claim, error) {
	return answered[Claim](ctx, c, http.MethodPost, "/v1/claim/wrong", nil)
}

// Claimed tells the box that it has an officer: the claim code is void for good.
func (c *Client) Claimed(ctx context.Context) error {
	return c.send(ctx, http.MethodPost, "/v1/claimed", nil)
}
