package boxtest

import (
	"context"

	"allotment/api"
)

// Network implements apiserver.Box.
func (b *Box) Network() api.Network { return b.Net }

// Power implements apiserver.Box.
func (b *Box) Power(ctx context.Context, restart bool) error {
	b.note("power, restart %t, for %s", restart, api.Actor(ctx))
	return nil
}

// Claim implements apiserver.Box.
func (b *Box) Claim() api.Claim {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Claims
}

// ClaimWrong implements apiserver.Box.
func (b *Box) ClaimWrong(context.Context) (api.Claim, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Claims.Wrong++
	return b.Claims, nil
}

// Claimed implements apiserver.Box.
func (b *Box) Claimed(context.Context) error {
	b.note("claimed")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Claims.Claimed = true
	return nil
}
