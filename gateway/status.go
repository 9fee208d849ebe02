package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// StatusFile is the file in Config.Data in which the gateway tells how it stands with its certificates: a Status in JSON.
const StatusFile = "status.json"

// mostStatus bounds a StatusFile, in bytes.
const mostStatus = 1 << 20

// Status is how the gateway stands with its certificates.
type Status struct {
	Authority    string        `json:"authority"` // fingerprint of the box's own authority: SHA-256, in upper case, pairs with colons
	Certificates []Certificate `json:"certificates"`
}

// Certificate is how it stands with one that browsers trust.
type Certificate struct {
	Names    []string  `json:"names"`
	Until    time.Time `json:"until,omitzero"` // it is good; zero: there is none yet
	Failures int       `json:"failures"`       // since the last success
	Why      string    `json:"why,omitempty"`  // one of those below, after a failure
	Error    string    `json:"error,omitempty"`
	Again    time.Time `json:"again,omitzero"` // not tried before, after a failure
}

// Why there is no certificate.
const (
	WhyElsewhere = "elsewhere" // the name leads to another machine, or nowhere
	WhyUnreached = "unreached" // the authority found nobody at port 80 and 443 of where the name leads to
	WhyForbidden = "forbidden" // the domain's CAA records exclude the authority (RFC 8659)
	WhyOften     = "often"     // the authority was asked too often
	WhyAway      = "away"      // the authority, or the name servers, do not answer
	WhyRefused   = "refused"   // the authority says no for another reason
)

// ReadStatus reads the StatusFile of the folder. Who wrote it can write other things there, so that a link out of the folder
// is not followed, a pipe is not waited for, and no more is read than mostStatus.
func ReadStatus(folder string) (Status, error) {
	var s Status
	if err := readStatus(folder, &s); err != nil {
		return Status{}, fmt.Errorf("cannot read how the gateway stands with certificates: %w", err)
	}
	return s, nil
}

func readStatus(folder string, s *Status) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := root.OpenFile(StatusFile, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file: %w", StatusFile, os.ErrInvalid)
	}
	b, err := io.ReadAll(io.LimitReader(f, mostStatus))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, s)
}
