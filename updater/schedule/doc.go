// Package schedule says when a device may take a release: by the release's wave, the device's place in it, and what officers
// want.
package schedule
