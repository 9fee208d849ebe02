// Package progress lets long work say how far it is, without knowing who listens.
package progress

// Reporter is told of the steps of long work. Its methods may be called from several goroutines.
type Reporter interface {
	// Step begins a step named in the imperative, such as "fetch 112 packages". Total is its size in bytes, or 0 if
	// that is not known. The step ends with Done.
	Step(name string, total int64) Step
}

// Step is one step under way.
type Step interface {
	Add(bytes int64)
	Done(err error)
}

// Silent is a Reporter that nobody listens to.
type Silent struct{}

// Step implements Reporter.
func (Silent) Step(string, int64) Step { return silentStep{} }

type silentStep struct{}

func (silentStep) Add(int64)  {}
func (silentStep) Done(error) {}
