// Package house holds the tests that keep the rules of the house: who may import whom, who may start processes, how long
// functions and files may grow, and that what the documents point at is there. docs/architecture.md states the rules.
//
// Each rule is a function from a tree of files to findings, so that its twin test can plant a breach and see it found.
package house
