// Package letter tells people who run no computers what became of an update: what was tried, whether it stays, what failed
// if it does not, that nothing was lost and why, and what happens next.
package letter

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"allotment/updater/attempt"
)

// Names are what an attempt's record does not know.
type Names struct {
	Organisation string            // such as Garden Club
	Modules      map[string]string // titles by names
	Zone         *time.Location    // of the organisation; nil: UTC
}

// Letter is a report for the officers, in plain English.
type Letter struct {
	Subject string `json:"subject"`
	Text    string `json:"text"` // paragraphs of one line each, with empty lines between
}

// KeptDays is how long the copy of the data from before an update is kept, and going back is possible.
const KeptDays = 7

// Write reports an attempt that has ended, committed or undone.
func Write(a *attempt.Attempt, n Names) Letter {
	w := writer{a, n}
	switch {
	case a.Stage == attempt.Committed:
		return w.committed()
	case a.ByHand:
		return w.takenBack()
	}
	return w.undone()
}

type writer struct {
	*attempt.Attempt
	names Names
}

func (w writer) letter(subject string, paragraphs ...string) Letter {
	var all []string
	for _, p := range paragraphs {
		if p != "" {
			all = append(all, p)
		}
	}
	return Letter{cmp.Or(w.names.Organisation, "Your server") + ": " + subject, strings.Join(all, "\n\n") + "\n"}
}

func (w writer) committed() Letter {
	return w.letter(fmt.Sprintf("the server was updated to version %s", w.To.Version),
		fmt.Sprintf("%s your server was updated from version %s to version %s. The new version stays.",
			w.when(attempt.Committed), w.From.Version, w.To.Version),
		w.proof(), w.brokenBefore(), w.away(),
		fmt.Sprintf("There is nothing that you need to do. If something turns out not to work as it did, an officer can go back "+
			"to version %s during the next %d days. The server says first what would be lost by that.", w.From.Version, KeptDays))
}

// proof says what was tried before anybody was let in.
func (w writer) proof() string {
	journeys := 0
	for _, r := range w.Results {
		if r.OK && r.Journey != "" {
			journeys++
		}
	}
	const before = "Before anybody could use it again, the server made sure by itself that everything that worked before still works"
	switch journeys {
	case 0:
		return before + "."
	case 1:
		return before + ". It also tried one thing that members do, and that worked."
	}
	return fmt.Sprintf("%s. It also tried %d things that members do, and all of them worked.", before, journeys)
}

// brokenBefore names what did not work before.
func (w writer) brokenBefore() string {
	var all []string
	for _, r := range w.Baseline {
		if !r.OK {
			all = append(all, "- "+w.name(r))
		}
	}
	if len(all) == 0 {
		return ""
	}
	return "This did not work before the update already, so it is not the update's doing, but somebody should look at it:\n" +
		strings.Join(all, "\n")
}

// name is a result as people know it.
func (w writer) name(r attempt.Result) string {
	module := w.module(r.Module)
	if r.Journey == "" {
		return module
	}
	return fmt.Sprintf("%s: “%s”", module, cmp.Or(r.Title, r.Journey))
}

func (w writer) module(name string) string { return cmp.Or(w.names.Modules[name], name) }

func (w writer) takenBack() Letter {
	return w.letter(fmt.Sprintf("the server went back to version %s", w.From.Version),
		fmt.Sprintf("%s your server went back from version %s to version %s, because an officer asked for it.",
			w.when(attempt.Undone), w.To.Version, w.From.Version),
		fmt.Sprintf("All data is as it was when version %s was installed%s. What was written since then is gone; the officer was told "+
			"what that is before confirming.", w.To.Version, w.at(attempt.Armed)),
		w.next())
}

func (w writer) undone() Letter {
	return w.letter("an update was tried and taken back; the server works as before",
		fmt.Sprintf("%s your server tried to update itself from version %s to version %s. The new version did not pass its trial "+
			"and was taken back. Your server runs version %s again, as before.",
			w.when(attempt.Undone), w.From.Version, w.To.Version, w.From.Version),
		"What went wrong: "+w.reason(),
		"Nothing was lost. Just before the trial the server stood still and kept a copy of all data, and that copy is what it works "+
			"with now. While the trial went on nobody could reach the server, so nothing was written that could be missing.",
		w.away(), w.next(), w.details())
}

// reason is what failed, in members' words.
func (w writer) reason() string {
	f := w.Failure
	if f == nil {
		f = &attempt.Failure{Check: attempt.CheckStart}
	}
	switch f.Check {
	case attempt.CheckJourney:
		return fmt.Sprintf("“%s” (%s) worked before the update and did not work with the new version.",
			cmp.Or(w.title(f), f.Journey), w.module(f.Module))
	case attempt.CheckModule:
		return w.module(f.Module) + " worked before the update and did not start with the new version."
	case attempt.CheckMigration:
		return fmt.Sprintf("the new version could not take over the data of %s.", w.module(f.Module))
	case attempt.CheckTime:
		if f.Module != "" {
			return fmt.Sprintf("the trial took longer than it may. %s was not ready in time.", w.module(f.Module))
		}
		return "the trial took longer than it may."
	case attempt.CheckStore:
		return "the new version could not write what it has to. The disk may be full or damaged."
	case attempt.CheckStart:
		return "the new version did not start at all."
	case attempt.CheckTries:
		return fmt.Sprintf("the server was started with the new version %s, and each time it went off before the trial was over. "+
			"That happens when the new version cannot run on this machine, and also when the electricity fails again and again.",
			times(w.Starts))
	}
	return "a part that the server cannot do without did not work with the new version."
}

// title is that of the journey that failed.
func (w writer) title(f *attempt.Failure) string {
	for _, r := range w.Baseline {
		if r.Module == f.Module && r.Journey == f.Journey {
			return r.Title
		}
	}
	return ""
}

func times(n int) string {
	words := []string{"", "once", "twice", "three times"}
	if n > 0 && n < len(words) {
		return words[n]
	}
	return "several times"
}

func (w writer) next() string {
	return fmt.Sprintf("Version %s will not be tried again on this server. The next newer version will be tried by itself, in the "+
		"same careful way. There is nothing that you need to do.", w.To.Version)
}

// details are for somebody who knows computers.
func (w writer) details() string {
	f := w.Failure
	if f == nil || f.Problem == "" && f.Output == "" {
		return ""
	}
	text := "For whoever helps you with the server:\n"
	what := strings.TrimSpace(f.Check + " " + f.Module)
	if f.Journey != "" {
		what += "." + f.Journey
	}
	text += "    " + what + ": " + indent(f.Problem)
	if f.Output != "" {
		text += "\n    " + indent(f.Output)
	}
	return text
}

// indent keeps further lines below the first.
func indent(text string) string { return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") }

// away says how long nobody could use the server.
func (w writer) away() string {
	from, to := w.mark(attempt.Armed), w.mark(w.Stage)
	if from.IsZero() || to.IsZero() {
		return ""
	}
	const late = "E-mail sent to it meanwhile comes late, but is not lost: the servers that send it try again by themselves."
	switch minutes := int(to.Sub(from).Round(time.Minute) / time.Minute); {
	case minutes < 0 || minutes > 600: // a clock that was set meanwhile
		return ""
	case minutes <= 1:
		return "Nobody could use the server for about a minute. " + late
	default:
		return fmt.Sprintf("Nobody could use the server for about %d minutes. %s", minutes, late)
	}
}

// when begins a sentence with the time of a stage.
func (w writer) when(s attempt.Stage) string {
	t := w.mark(s)
	if t.IsZero() {
		return "Recently"
	}
	return "On " + w.date(t)
}

// at is the time of a stage within a sentence.
func (w writer) at(s attempt.Stage) string {
	t := w.mark(s)
	if t.IsZero() {
		return ""
	}
	return " on " + w.date(t)
}

func (w writer) date(t time.Time) string {
	zone := w.names.Zone
	if zone == nil {
		zone = time.UTC
	}
	return t.In(zone).Format("Monday 2 January 2006 at 15:04")
}

// mark is when the stage was reached last.
func (w writer) mark(s attempt.Stage) time.Time {
	var t time.Time
	for _, m := range w.Marks {
		if m.Stage == s {
			t = m.Time
		}
	}
	return t
}
