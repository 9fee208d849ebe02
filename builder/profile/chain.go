package profile

import "fmt"

// Chain lists the trees that t stands on, lowest first, and t.
func (p *Profile) Chain(t *Tree) ([]*Tree, error) {
	chain := []*Tree{t}
	for t.Base != "" {
		base := p.Trees[t.Base]
		if base == nil || len(chain) > len(p.Trees) {
			return nil, fmt.Errorf("cannot find the base %q of tree %q", t.Base, t.Name)
		}
		chain = append([]*Tree{base}, chain...)
		t = base
	}
	return chain, nil
}
