package qemutests

import (
	"net"
	"net/http/httptest"
	"regexp"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"allotment/api"
	"allotment/image"
	"allotment/qemu-tests/vm"
)

// hostSeen is the address by which a guest reaches this machine (QEMU's user network).
const hostSeen = "10.0.2.2"

// storage is an S3 server that machines reach, with an empty bucket.
func storage(t *testing.T) api.BackupTarget {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("club"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return api.BackupTarget{Kind: "s3", Address: "http://" + net.JoinHostPort(hostSeen, port), Folder: "club/box", User: "key", Secret: "secret"}
}

// mustTell waits for what the box tells of its backup, which must be good, from the event after the number on.
func mustTell(t *testing.T, c *api.Client, after *uint64, what string) {
	t.Helper()
	pattern := regexp.MustCompile(what)
	for e, err := range c.Events(t.Context(), api.EventQuery{After: *after, Follow: true}) {
		if err != nil {
			t.Fatalf("waiting for %q: %v", what, err)
		}
		*after = e.Number
		if e.Kind != "backup" || e.Level == api.Fair { // what is under way
			continue
		}
		if e.Level != api.Good || !pattern.MatchString(e.Text) {
			t.Fatalf("waiting for %q: %s", what, e.Text)
		}
		t.Log(e.Text)
		return
	}
}

// TestBackup saves what members have entered on one box and proves it, and restores it on another one that has nothing.
func TestBackup(t *testing.T) { testBackup(t, "directory", "calendar") }

// TestBackupWeb does so with modules whose databases run while they are saved and restored.
func TestBackupWeb(t *testing.T) {
	full(t)
	testBackup(t, "directory", "web", "chat", "calendar")
}

func testBackup(t *testing.T, modules ...string) {
	target := storage(t)
	passwords, key := fillAndSave(t, target, modules)
	b := bootClubWithout(t, modules)
	defer showLogs(t, b.VM)
	b.passwords = passwords
	from := len(b.Events())
	request := api.BackupRestoreRequest{Target: target, Key: key}
	if err := b.API().RestoreBackup(t.Context(), request); err == nil {
		t.Fatal("the box would be overwritten without a word")
	}
	request.Confirm = true
	if err := b.API().RestoreBackup(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"^RESTORE-ARMED", "^RESTORE-EXCHANGED", "^BOOT-OK "} {
		t.Log(b.mustSay(t, &from, regexp.MustCompile(line)))
	}
	after := uint64(0)
	mustTell(t, b.API(), &after, "is restored")
	status, err := b.API().Backup(t.Context())
	if err != nil || status.Restore == nil || status.Restore.Stage != "done" || status.Target == nil {
		t.Fatalf("%+v, %v", status, err)
	}
	t.Logf("%+v", status.Restore)
	mustHave(t, b.openCalendar(t, "user01"), 3, 1)
}

// bootClubWithout boots a box with nobody in it.
func bootClubWithout(t *testing.T, modules []string) *club {
	t.Helper()
	return &club{VM: bootImage(t, clubImage(t, image.AMD64, modules), vm.Options{Forward: []int{80}, Limit: vm.Patience(25 * time.Minute)})}
}

// fillAndSave has a box of its own that makes a backup, and ends it.
func fillAndSave(t *testing.T, target api.BackupTarget, modules []string) (passwords map[string]string, key string) {
	t.Helper()
	a := bootClub(t, image.AMD64, modules...)
	defer func() {
		showLogs(t, a.VM)
		a.Close()
	}()
	phone := a.openCalendar(t, "user01")
	if err := phone.AddEvents(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if err := phone.AddCards(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	sheet, err := a.API().SetBackupTarget(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	after := uint64(0)
	if err := a.API().BackupNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustTell(t, a.API(), &after, "backup was made")
	if err := a.API().BackupProve(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustTell(t, a.API(), &after, "restored and proven")
	status, err := a.API().Backup(t.Context())
	if err != nil || status.Proof == nil || len(status.Proof.Modules) < len(modules) {
		t.Fatalf("%+v, %v", status, err)
	}
	for _, m := range status.Proof.Modules {
		t.Logf("%+v", m)
	}
	return a.passwords, sheet.Key
}
