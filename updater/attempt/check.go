package attempt

// What can fail of a release, as Failure.Check.
const (
	CheckStart     = "start"     // it was started and never came to write its record
	CheckTries     = "tries"     // it began its trial, and was reset each time before that was over
	CheckCore      = "core"      // the box itself: network, state, layers, core services
	CheckMigration = "migration" // a volume of a module
	CheckModule    = "module"    // was ready before, and is not
	CheckJourney   = "journey"   // worked before, and does not
	CheckTime      = "time"      // the trial took longer than it may
	CheckStore     = "store"     // what must be durable could not be written
)

// DefaultBudget is how long a trial may take whose release does not say it, in seconds.
const DefaultBudget = 1800
