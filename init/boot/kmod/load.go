package kmod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Loader loads modules into the running kernel. It is not safe for use by several goroutines.
type Loader struct {
	index *Index
	dir   string
	done  map[string]error // outcome by module name
}

// Open prepares to load from the modules of the running kernel.
func Open() (*Loader, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, err
	}
	dir := filepath.Join("/usr/lib/modules", unix.ByteSliceToString(uts.Release[:]))
	index, err := ReadIndex(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	return &Loader{index: index, dir: dir, done: map[string]error{}}, nil
}

// Index is what the loader knows.
func (l *Loader) Index() *Index { return l.index }

// LoadAll loads every module that each name or alias stands for. Unknown ones are taken as built in.
func (l *Loader) LoadAll(namesOrAliases ...string) error {
	var errs []error
	for _, n := range namesOrAliases {
		for _, name := range l.index.Find(n) {
			errs = append(errs, l.Load(name))
		}
	}
	return errors.Join(errs...)
}

// Load loads the module of this name after those that it depends on. That it is loaded already is no error.
func (l *Loader) Load(name string) error {
	if err, ok := l.done[name]; ok {
		return err
	}
	m := l.index.modules[name]
	if m == nil {
		return fmt.Errorf("cannot load kernel module %q: no such module", name)
	}
	l.done[name] = nil // ends circles of soft dependencies
	err := l.load(m)
	l.done[name] = err
	return err
}

func (l *Loader) load(m *module) error {
	// Soft dependencies that fail, such as a driver for instructions that this processor lacks, are not missed.
	_ = l.LoadAll(m.pre...)
	for _, file := range m.depends {
		d := l.index.modules[Name(file)]
		if d == nil {
			return fmt.Errorf("cannot load kernel module %q: %q is not in the index", m.file, file)
		}
		if err := l.Load(Name(file)); err != nil {
			return err
		}
	}
	if err := insert(filepath.Join(l.dir, m.file)); err != nil {
		return fmt.Errorf("cannot load kernel module %q: %w", m.file, err)
	}
	_ = l.LoadAll(m.post...)
	return nil
}

// insert gives a module to the kernel. The kernel checks its signature where Secure Boot locks it down.
func insert(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		err := unix.FinitModule(int(f.Fd()), "", 0)
		if err == unix.EINTR { // it waited for another loader of the same file, and a signal of Go's runtime came
			continue
		}
		if err == unix.EEXIST {
			return nil
		}
		return err
	}
}
