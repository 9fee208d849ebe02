// Package updater finds, fetches and stages new releases, and asks the supervisor for the restart in which one is tried.
// What it does and in which order is Daemon.round; see the architecture's section about releases and updates.
package updater
