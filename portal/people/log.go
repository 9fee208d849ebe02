package people

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"allotment/portal/audit"
	"allotment/portal/web"
)

// logLength is how many entries a page of the log has.
const logLength = 50

// logPage is what page log shows.
type logPage struct {
	Entries []logEntry
	Older   string // ID of the last entry, if there are older ones
	Later   bool   // this is not the newest page
}

type logEntry struct {
	Time time.Time
	Text string
}

func showLog(r *web.Request) error {
	before := r.Query("before")
	entries, err := r.Audit.Recent(logLength+1, before)
	if err != nil {
		return err
	}
	page := logPage{Later: before != ""}
	if len(entries) > logLength {
		entries = entries[:logLength]
		page.Older = entries[logLength-1].ID
	}
	names := displayNames(r)
	for _, e := range entries {
		page.Entries = append(page.Entries, logEntry{e.Time, sentence(r, e, names)})
	}
	return r.Render("log", page)
}

// displayNames are people's names as others see them. Those who have left keep the name of their account.
func displayNames(r *web.Request) map[string]string {
	names := map[string]string{}
	all, err := r.Directory.People(r.Context())
	if err != nil { // the log is worth reading without them
		r.Log.Warn("cannot name people in the log", "error", err)
	}
	for _, p := range all {
		names[p.Name] = p.Display
	}
	return names
}

// sentence is an entry in words.
func sentence(r *web.Request, e audit.Entry, names map[string]string) string {
	name := func(account string) string {
		if d := names[account]; d != "" && d != account {
			return d + " (" + account + ")"
		}
		return account
	}
	actor := name(e.Actor)
	if e.Actor == "" {
		actor = r.T("log.box")
	}
	args := []any{"actor", actor, "subject", cmp.Or(thing(r, e, "subject"), name(e.Subject))}
	for _, key := range slices.Sorted(maps.Keys(e.Args)) {
		args = append(args, key, cmp.Or(thing(r, e, key), name(e.Args[key])))
	}
	key := "audit." + e.Kind
	if !r.Has(key) { // of a version that knew more
		return r.T("log.unknown", append(args, "kind", e.Kind)...)
	}
	return r.T(key, args...)
}

// thing is a module, or something of one, in the visitor's words, where an entry names such a thing; else it is empty.
func thing(r *web.Request, e audit.Entry, key string) string {
	switch value := e.Args[key]; {
	case key == "subject" && strings.HasPrefix(e.Kind, "box."):
		return r.Or("module."+e.Subject+".title", "")
	case key == "setting":
		return r.Or("setting."+e.Subject+"."+value+".title", "")
	case key == "task":
		return r.Or("task."+e.Subject+"."+value+".title", "")
	case key == "module":
		return r.Or("module."+value+".title", "")
	case key == "permission":
		return r.Or("permission."+e.Args["module"]+"."+value+".title", "")
	}
	return ""
}
