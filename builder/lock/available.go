package lock

import (
	"allotment/builder/apt"
	"allotment/image"
)

// Available returns packages with every one that the index no longer has replaced by the newest version of it there is.
func Available(packages []Package, index *apt.Index, arch image.Arch) ([]Package, error) {
	there := map[image.Digest]bool{}
	for _, e := range index.Entries(arch) {
		there[e.SHA256] = true
	}
	current := make([]Package, len(packages))
	for i, p := range packages {
		if !there[p.SHA256] {
			newest, err := index.Newest(arch, p.Name)
			if err != nil {
				return nil, err
			}
			p = newest
		}
		current[i] = p
	}
	return current, nil
}
