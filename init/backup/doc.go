// Package backup saves what the organisation has to a place outside the box, proves that it can be had back, and brings it
// back on a blank box. The work of encryption and deduplication is restic's; what is here decides what is saved when, and
// how a cut at any moment is made good. docs/backup.md describes it for those who run a box.
package backup
