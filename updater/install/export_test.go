package install

import "allotment/image"

// OpenTarget, AllParts and KeepNeeds are for the tests in install_test.
var (
	OpenTarget = openTarget
	AllParts   = allParts
)

// KeepNeeds notes what a version needs.
func (c Config) KeepNeeds(v image.Version, n Needs) error { return c.keepNeeds(v, n) }
