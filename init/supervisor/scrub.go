package supervisor

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// scrub reads the layers of a module whose service failed, once in a boot. The kernel gives no byte of a layer that does
// not fit its digest, so damage is a read error; a box with damaged programs resets, a bounded number of times, rather
// than limp. Reading them all at every boot would cost seconds for what almost never happens.
func (s *Supervisor) scrub(u *unit) {
	m := u.module
	if m == nil {
		return
	}
	layers, name := m.layers, m.plan.Name
	m.layers = nil
	s.reading.Go(func() {
		for _, path := range layers {
			if err := readToEnd(path, s.ends); err != nil {
				s.send(eventBroken{"layer", fmt.Errorf("module %s is damaged: %w", name, err)})
				return
			}
		}
	})
}

// readToEnd reads a whole file, unless stop is closed before, and does not leave it in memory.
func readToEnd(path string, stop <-chan struct{}) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	defer unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if _, err := io.CopyN(io.Discard, f, 1<<20); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}
