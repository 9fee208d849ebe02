// Package image holds the nouns that the builder and the device share: architectures, digests, versions, slots, module
// manifests and the release manifest that ties them together. It imports nothing else of ours, so that both sides can
// depend on it without depending on each other.
//
// The subpackages make and read the parts of an image: erofs (file trees), verity (dm-verity and fs-verity hashes),
// secureboot (keys and Authenticode signatures), uki (unified kernel images), disk (GPT, ESP, outputs), layer (the
// store of module layers) and validate (every invariant of a finished image).
package image
