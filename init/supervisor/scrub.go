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
	j, ok := u.job.(*serviceJob)
	if !ok {
		return
	}
	m := j.service.Module
	layers := s.layersOf[m]
	delete(s.layersOf, m)
	go func() {
		for _, path := range layers {
			if err := readToEnd(path); err != nil {
				s.send(eventBroken{"layer", fmt.Errorf("module %s is damaged: %w", m.Name, err)})
				return
			}
		}
	}()
}

// readToEnd reads a whole file, and does not leave it in memory.
func readToEnd(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return err
}
