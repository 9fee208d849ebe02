// Package release keeps the repository that devices take their updates from: plain files under The Update Framework (TUF
// specification 1.0), which any web server can give. The private keys are elsewhere, see Keyring. Every change is made whole
// or not at all: files are written first, and the timestamp, which names everything else, last. See
// docs/formats/repository.md.
package release
