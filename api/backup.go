package api

import "time"

// BackupTarget is where backups go. Kind says which of the other fields count.
type BackupTarget struct {
	Kind string `json:"kind"` // s3, sftp, box (another Allotment box), rest (a rest-server) or usb
	// Address is for s3 the URL of the service, such as https://s3.example.org; for sftp HOST or HOST:PORT; for rest the URL;
	// for box that of the other box, such as https://club.example.org.
	Address string `json:"address,omitempty"`
	Folder  string `json:"folder,omitempty"` // s3: BUCKET or BUCKET/FOLDER; sftp: folder; usb: folder on the disk, default allotment
	User    string `json:"user,omitempty"`   // s3: key id; sftp, box and rest: user
	Secret  string `json:"secret,omitempty"` // s3: secret key; sftp, box and rest: password. Never answered
	// HostKey is for sftp the server's key as in known_hosts without the name; empty: that of the first time. For box it is the
	// fingerprint (SHA-256 in hexadecimal digits) of the box's own authority; empty: its certificate is publicly trusted.
	HostKey   string `json:"hostKey,omitempty"`
	Authority string `json:"authority,omitempty"` // box: the certificate of that authority (PEM), which the box fetches itself
	Label     string `json:"label,omitempty"`     // usb: label of the disk's file system
}

// BackupState is a word for what the backup does.
type BackupState string

// The states.
const (
	BackupOff       BackupState = "off" // there is no target
	BackupIdle      BackupState = "idle"
	BackupSaving    BackupState = "saving"
	BackupProving   BackupState = "proving"
	BackupRestoring BackupState = "restoring"
	BackupExporting BackupState = "exporting"
)

// BackupStatus is how the backup does.
type BackupStatus struct {
	State    BackupState    `json:"state"`
	Text     string         `json:"text"`              // one sentence in plain English
	Target   *BackupTarget  `json:"target,omitempty"`  // without its secret
	Step     string         `json:"step,omitempty"`    // of what is under way
	Done     int64          `json:"done,omitempty"`    // bytes of it
	Total    int64          `json:"total,omitempty"`   // bytes, as far as is known
	Last     *BackupRun     `json:"last,omitempty"`    // the last run, good or not
	Good     *BackupRun     `json:"good,omitempty"`    // the last good one
	Proof    *BackupProof   `json:"proof,omitempty"`   // the last proof, good or not
	Proven   time.Time      `json:"proven,omitzero"`   // when a proof was good last
	Next     time.Time      `json:"next,omitzero"`     // when the next run is due
	Restore  *BackupRestore `json:"restore,omitempty"` // the last full restore of this box
	Export   *BackupExport  `json:"export,omitempty"`  // the last export that was written to its end
	Lamp     Lamp           `json:"lamp"`
	KeySheet bool           `json:"keySheet"` // the key has not been confirmed as printed
}

// BackupRun is what one backup came to.
type BackupRun struct {
	Time     time.Time `json:"time"`               // when it began
	Seconds  float64   `json:"seconds"`            // that it took
	OK       bool      `json:"ok"`                 // all modules are in it
	Problem  string    `json:"problem,omitempty"`  // why not
	Snapshot string    `json:"snapshot,omitempty"` // its id in the repository
	Bytes    int64     `json:"bytes,omitempty"`    // that were looked at
	Added    int64     `json:"added,omitempty"`    // that the target has more than before
	Files    int64     `json:"files,omitempty"`
}

// BackupExport is what an export in open formats came to.
type BackupExport struct {
	Time    time.Time `json:"time"`
	OK      bool      `json:"ok"`                // all modules are in it
	Problem string    `json:"problem,omitempty"` // what is missing, and why
}

// BackupProof is the receipt of a proof: the newest backup was restored beside the running system, and each module proved it.
type BackupProof struct {
	Time     time.Time           `json:"time"`
	Seconds  float64             `json:"seconds"`
	OK       bool                `json:"ok"`
	Problem  string              `json:"problem,omitempty"`
	Snapshot string              `json:"snapshot,omitempty"`
	Taken    time.Time           `json:"taken,omitzero"` // when that backup was made
	Bytes    int64               `json:"bytes"`
	Files    int64               `json:"files"`
	Modules  []BackupModuleProof `json:"modules"`
}

// BackupModuleProof is a module's part in a proof.
type BackupModuleProof struct {
	Module  string  `json:"module"`
	OK      bool    `json:"ok"`
	Problem string  `json:"problem,omitempty"`
	Steps   string  `json:"steps"` // what was done, such as "verify, restore, restore-test"
	Seconds float64 `json:"seconds"`
}

// BackupSnapshot is one backup in the repository.
type BackupSnapshot struct {
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Host    string    `json:"host"`              // name of the profile of the box that made it
	Version string    `json:"version,omitempty"` // of that box
}

// BackupSheet is what an officer prints: without target and key there is no restore.
type BackupSheet struct {
	Key    string       `json:"key"` // groups of letters and digits with a check at the end
	Target BackupTarget `json:"target"`
	New    bool         `json:"new"` // the key was made now; else it is that of before
}

// BackupRestoreRequest asks for a full restore, which replaces all that the box has.
type BackupRestoreRequest struct {
	Target   BackupTarget `json:"target"`
	Key      string       `json:"key"`
	Snapshot string       `json:"snapshot,omitempty"` // id; empty: the newest
	Confirm  bool         `json:"confirm"`            // that all that the box has may be replaced
}

// BackupRestore is how a full restore goes.
type BackupRestore struct {
	Time     time.Time           `json:"time"`
	Stage    string              `json:"stage"` // fetching, armed, exchanged, done or failed
	Snapshot string              `json:"snapshot,omitempty"`
	Problem  string              `json:"problem,omitempty"`
	Modules  []BackupModuleProof `json:"modules,omitempty"` // their restore steps
}
