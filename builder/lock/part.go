package lock

import (
	"slices"

	"allotment/builder/profile"
	"allotment/image"
)

// Part is the lock of the profile want as a part of that of the profile of, if all trees of want are among those of of as
// they were locked.
func (l *Lock) Part(of, want *profile.Profile) (*Lock, bool) {
	if l.Check(of) != nil {
		return nil, false
	}
	part := &Lock{Format: l.Format, Epoch: l.Epoch, Inputs: InputsOf(want.Trees, want.Archs),
		Trees: map[string]map[image.Arch][]Package{}}
	for name, tree := range want.Trees {
		locked := of.Trees[name]
		if locked == nil || InputsOf(map[string]*profile.Tree{name: locked}, nil) != InputsOf(map[string]*profile.Tree{name: tree}, nil) {
			return nil, false
		}
		part.Trees[name] = map[image.Arch][]Package{}
		for _, arch := range want.Archs {
			if !slices.Contains(of.Archs, arch) {
				return nil, false
			}
			part.Trees[name][arch] = l.Trees[name][arch]
		}
	}
	return part, true
}
