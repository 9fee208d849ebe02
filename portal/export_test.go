package portal

import "context"

// Sweep is what Run does every hour.
func (p *Portal) Sweep(ctx context.Context) { p.sweep(ctx) }
