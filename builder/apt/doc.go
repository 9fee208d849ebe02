// Package apt is a client of the Debian archive: it verifies the signed indexes, finds packages in them, and fetches
// packages by their hash. It solves no dependencies; package resolve has apt itself do that.
package apt
