package gate

import (
	"fmt"

	"allotment/updater/attempt"
)

// Compare returns what worked before and does not now; nil if everything does. What the new release does not have any more
// is not missed, and what did not work before need not work now. A module that is not ready comes before journeys.
func Compare(before, now []attempt.Result) *attempt.Failure {
	var journey *attempt.Failure
	for _, r := range now {
		if r.OK || !worked(before, r) {
			continue
		}
		if r.Journey == "" {
			return &attempt.Failure{Check: attempt.CheckModule, Module: r.Module, Output: r.Output,
				Problem: said(r, "is not ready")}
		}
		if journey == nil {
			journey = &attempt.Failure{Check: attempt.CheckJourney, Module: r.Module, Journey: r.Journey, Output: r.Output,
				Problem: said(r, "failed")}
		}
	}
	return journey
}

// worked tells whether the module was ready before, or the journey succeeded.
func worked(before []attempt.Result, r attempt.Result) bool {
	for _, b := range before {
		if b.Module == r.Module && b.Journey == r.Journey {
			return b.OK
		}
	}
	return false
}

func said(r attempt.Result, what string) string {
	if r.Problem == "" {
		return fmt.Sprintf("%s %s", r.Title, what)
	}
	return fmt.Sprintf("%s %s: %s", r.Title, what, r.Problem)
}
