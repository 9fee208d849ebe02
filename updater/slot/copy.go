package slot

import (
	"fmt"
	"io"
	"io/fs"

	"allotment/image"
)

// UKI opens the unified kernel image of a version that could be started. It can be read until the store is closed.
func (s *Store) UKI(v image.Version) (io.Reader, error) {
	files, err := s.ofVersion(v)
	if err == nil && len(files) == 0 {
		err = fs.ErrNotExist
	}
	if err == nil {
		var r io.Reader
		if r, err = s.ed.Open(files[0].Path()); err == nil {
			return r, nil
		}
	}
	return nil, fmt.Errorf("cannot read the UKI of version %s: %w", v, err)
}
