package api

// Access is who may use a route. Each class may do what those before it may.
type Access int

// The classes.
const (
	Public    Access = iota // anybody who reaches the socket
	Member                  // a member of the organisation who has logged in
	Officer                 // a member who runs the box
	Owner                   // who owns the machine: root on it, or who could change its disk anyway
	Developer               // the owner of a machine with a developer image; on others the route is not there
)

// String is the class's name as in docs/formats/api.md.
func (a Access) String() string {
	return [...]string{"public", "member", "officer", "owner", "developer"}[a]
}

// Route is a method with a path pattern, as in net/http.ServeMux.
type Route struct {
	Method string
	Path   string
	Access Access
	Does   string
}

// Pattern is the route as net/http.ServeMux takes it.
func (r Route) Pattern() string { return r.Method + " " + r.Path }

// Routes are all that the box can be asked.
func Routes() []Route {
	return []Route{
		{"GET", "/v1", Public, "which box this is"},
		{"GET", "/v1/health", Member, "the state of the box in a few lines"},
		{"GET", "/v1/modules", Member, "all modules with their services"},
		{"GET", "/v1/modules/{module}", Member, "one module with its services"},
		{"POST", "/v1/modules/{module}/on", Officer, "switch a module on, for good"},
		{"POST", "/v1/modules/{module}/off", Officer, "switch a module off, for good"},
		{"POST", "/v1/modules/{module}/services/{service}/restart", Officer, "end a service and start it again"},
		{"GET", "/v1/logs", Officer, "lines of logs; streams"},
		{"GET", "/v1/events", Officer, "what happened since boot; streams"},
		{"GET", "/v1/resources", Officer, "memory, processor time and disk, and who uses them"},
		{"GET", "/v1/network", Officer, "the box's addresses, the names and records that should lead to them, and the names' certificates"},
		{"POST", "/v1/power/restart", Officer, "stop everything in order and start the machine again"},
		{"POST", "/v1/power/off", Officer, "stop everything in order and switch the machine off"},
		{"GET", "/v1/claim", Officer, "whether the box belongs to somebody, and how many wrong claim codes there were since boot"},
		{"POST", "/v1/claim/wrong", Officer, "count a wrong claim code, and tell it on the console; for the portal"},
		{"POST", "/v1/claimed", Officer, "void the claim code for good, because there is an officer; for the portal"},
		{"GET", "/v1/settings", Officer, "the organisation's settings"},
		{"PATCH", "/v1/settings", Officer, "change some of the organisation's settings"},
		{"GET", "/v1/modules/{module}/settings", Officer, "a module's settings"},
		{"PATCH", "/v1/modules/{module}/settings", Officer, "change some of a module's settings"},
		{"GET", "/v1/tasks", Officer, "all journeys, repairs, migrations and backup steps"},
		{"POST", "/v1/modules/{module}/tasks/{kind}/{task}", Officer, "run one of them; streams"},
		{"GET", "/v1/update", Officer, "how the box stays up to date"},
		{"GET", "/v1/update/history", Officer, "all updates that were tried, the newest first, with their letters"},
		{"PATCH", "/v1/update/policy", Officer, "change some of what officers want of updates"},
		{"POST", "/v1/update/check", Officer, "ask the publisher for a new version now"},
		{"POST", "/v1/update/now", Officer, "update as soon as possible, without waiting for the night"},
		{"POST", "/v1/update/back", Officer, "go back to the version of before, if it is confirmed, or say what that would lose"},
		{"POST", "/v1/update/restart", Owner, "stop, keep a copy of the data, and try the version that is ready; for the updater"},
		{"POST", "/v1/update/tidy", Owner, "remove the copies of data that no way back needs any more; for the updater"},
		{"GET", "/v1/backup", Officer, "how the backup does: target, last run, last proof, lamp"},
		{"PUT", "/v1/backup/target", Officer, "try a target and back up there from now on; answers with the sheet to print"},
		{"DELETE", "/v1/backup/target", Officer, "back up no more; what is there stays there"},
		{"POST", "/v1/backup/printed", Officer, "the sheet with the key was printed"},
		{"GET", "/v1/backup/sheet", Officer, "the sheet with the key, as long as nobody has said that it was printed; for the owner always"},
		{"GET", "/v1/backup/snapshots", Officer, "the backups at the target, the newest first"},
		{"POST", "/v1/backup/now", Officer, "back up now"},
		{"POST", "/v1/backup/prove", Officer, "restore the newest backup beside the running system now and prove it"},
		{"POST", "/v1/backup/restore", Officer, "replace all that the box has by a backup; the box restarts for it"},
		{"GET", "/v1/export", Officer, "all of the organisation's data in open formats, as a tar file; streams"},
		{"POST", "/v1/provision", Owner, "make accounts with new passwords; streams"},
		{"GET", "/v1/developer/layers/{digest}", Developer, "whether the box has a layer"},
		{"PUT", "/v1/developer/layers/{digest}", Developer, "give the box a layer"},
		{"PUT", "/v1/developer/modules/{module}", Developer, "run a module by another declaration, until the next boot"},
		{"POST", "/v1/developer/modules/{module}/ports/{port}", Developer, "a TCP connection to the module; both bodies stream"},
		{"POST", "/v1/developer/modules/{module}/services/{service}/run", Developer, "run a command in a container; streams"},
		{"GET", "/v1/developer/processes", Developer, "all processes"},
		{"POST", "/v1/developer/processes/{pid}/signal/{signal}", Developer, "send a signal such as SIGKILL to a process"},
		{"POST", "/v1/developer/clock/{seconds}", Developer, "move the clock forth, or back where negative"},
	}
}
