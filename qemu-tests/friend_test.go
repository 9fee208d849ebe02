package qemutests

import (
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/builder/profile"
	"allotment/image"
	"allotment/qemu-tests/vm"
)

// TestBackupAtFriend has a box back up to another one, which has a domain that only these two know, and so a certificate of its
// own authority. Its officers compare the fingerprint, as they would by telephone; a wrong password is refused.
func TestBackupAtFriend(t *testing.T) {
	full(t)
	const friend = "friend.example"
	serveNames(t, friend, net.ParseIP(hostSeen))
	keeper := bootImage(t, imageOf(t, "backup-host", image.AMD64, func(*profile.Profile) {}),
		vm.Options{Forward: []int{80, 443}, Limit: vm.Patience(25 * time.Minute)})
	defer showLogs(t, keeper)
	target := api.BackupTarget{Kind: "box", Address: "https://" + net.JoinHostPort(friend, strconv.Itoa(port(t, keeper, 443))), User: "ashwell"}
	target.Secret = admitFriend(t, keeper, friend, target.User)

	modules := []string{"directory", "calendar"}
	box := bootImage(t, clubImageWith(t, image.AMD64, modules, func(p *profile.Profile) { p.Network.DNS = []string{hostSeen} }),
		vm.Options{Forward: []int{80}, Limit: vm.Patience(25 * time.Minute)})
	defer showLogs(t, box)
	target.HostKey = refusedPlace(t, box, target, "fingerprint ((?:[0-9A-F]{2}:?){32})")
	wrong := target
	wrong.Secret = "wrong"
	refusedPlace(t, box, wrong, "(user and the password)")
	if _, err := box.API().SetBackupTarget(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	after := uint64(0)
	if err := box.API().BackupNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustTell(t, box.API(), &after, "backup was made")
	if err := box.API().BackupProve(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustTell(t, box.API(), &after, "restored and proven")
}

// refusedPlace tries a place for backups until it is refused as wanted, as the other box takes its new name and settings up meanwhile.
// It returns what the refusal says at the pattern's parentheses.
func refusedPlace(t *testing.T, box *vm.VM, target api.BackupTarget, pattern string) string {
	t.Helper()
	wanted := regexp.MustCompile(pattern)
	for end := time.Now().Add(vm.Patience(2 * time.Minute)); ; time.Sleep(time.Second) {
		_, err := box.API().SetBackupTarget(t.Context(), target)
		if err == nil {
			t.Fatalf("the place was taken, want %q", pattern)
		}
		if found := wanted.FindStringSubmatch(err.Error()); found != nil {
			return found[1]
		}
		if time.Now().After(end) {
			t.Fatalf("the place was refused by %q, want %q", err, pattern)
		}
	}
}

// admitFriend gives the keeping box its name, and a friend room on it. It returns the friend's password.
func admitFriend(t *testing.T, keeper *vm.VM, domain, name string) string {
	t.Helper()
	if err := keeper.API().SetSettings(t.Context(), "", map[string]any{"domain": domain}); err != nil {
		t.Fatal(err)
	}
	if err := keeper.API().SetSettings(t.Context(), "backups", map[string]any{"friends": name}); err != nil {
		t.Fatal(err)
	}
	shown := runTask(t, keeper.API(), api.Task{Module: "backups", Kind: "repair", Name: "passwords"})
	found, password, _ := strings.Cut(strings.TrimSpace(shown.Output), "  ")
	if !shown.OK || found != name {
		t.Fatalf("what friends type in: %+v", shown)
	}
	return password
}
