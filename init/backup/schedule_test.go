package backup

import (
	"testing"
	"time"

	"allotment/api"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestDue(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		last *api.BackupRun
		zone *time.Location
		want time.Time
	}{
		{"never", nil, time.UTC, noon},
		{"yesterday's", &api.BackupRun{Time: noon.Add(-24 * time.Hour), OK: true}, time.UTC, time.Date(2026, 11, 22, 1, 30, 0, 0, time.UTC)},
		{"tonight's", &api.BackupRun{Time: time.Date(2026, 11, 22, 1, 31, 0, 0, time.UTC), OK: true}, time.UTC, time.Date(2026, 11, 23, 1, 30, 0, 0, time.UTC)},
		{"in another zone", &api.BackupRun{Time: noon, OK: true}, berlin, time.Date(2026, 11, 23, 0, 30, 0, 0, time.UTC)},
		{"a failed one", &api.BackupRun{Time: noon}, time.UTC, noon.Add(time.Hour)},
	} {
		s := &Service{config: Config{Spread: 30 * time.Minute}, history: history{Last: c.last}}
		if got := s.due(noon, c.zone); !got.Equal(c.want) {
			t.Errorf("after %s one is due at %v, want %v", c.name, got, c.want)
		}
	}
}

func TestLamp(t *testing.T) {
	target := &api.BackupTarget{Kind: USB, Label: "BACKUP"}
	good := func(age time.Duration) *api.BackupRun { return &api.BackupRun{Time: noon.Add(-age), OK: true} }
	const day = 24 * time.Hour
	for _, c := range []struct {
		name   string
		target *api.BackupTarget
		h      history
		want   api.Level
	}{
		{"no target", nil, history{}, api.Fair},
		{"a new target", target, history{Since: noon}, api.Fair},
		{"a target where nothing arrives", target, history{Since: noon.Add(-4 * day)}, api.Bad},
		{"all is well", target, history{Good: good(time.Hour), Proven: noon.Add(-3 * day), Printed: true}, api.Good},
		{"no sheet", target, history{Good: good(time.Hour), Proven: noon.Add(-3 * day)}, api.Fair},
		{"not proven yet", target, history{Good: good(time.Hour), Since: noon.Add(-3 * day), Printed: true}, api.Good},
		{"never proven", target, history{Good: good(time.Hour), Since: noon.Add(-30 * day), Printed: true}, api.Bad},
		{"proven long ago", target, history{Good: good(time.Hour), Proven: noon.Add(-30 * day), Printed: true}, api.Bad},
		{"a bad proof", target, history{Good: good(time.Hour), Proven: noon.Add(-8 * day), Proof: &api.BackupProof{}, Printed: true}, api.Bad},
		{"a failed run", target, history{Good: good(day), Proven: noon, Last: &api.BackupRun{}, Printed: true}, api.Fair},
		{"two nights missed", target, history{Good: good(2 * day), Proven: noon, Printed: true}, api.Fair},
		{"three nights missed", target, history{Good: good(3 * day), Proven: noon, Printed: true}, api.Bad},
	} {
		if l := lamp(c.target, c.h, noon); l.Level != c.want || l.Text == "" {
			t.Errorf("%s: %+v, want %s", c.name, l, c.want)
		}
	}
}

func TestCheckTarget(t *testing.T) {
	good := []api.BackupTarget{
		{Kind: S3, Address: "https://s3.example.org", Folder: "bucket/box", User: "id", Secret: "key"},
		{Kind: SFTP, Address: "backup.example.org:23", User: "u1", Secret: "word"},
		{Kind: REST, Address: "https://other.example.org/backup"},
		{Kind: USB, Label: "BACKUP"},
	}
	for _, g := range good {
		if err := CheckTarget(g); err != nil {
			t.Errorf("%+v: %v", g, err)
		}
	}
	for name, bad := range map[string]api.BackupTarget{
		"no kind":           {},
		"a command":         {Kind: "rclone", Address: "x"},
		"no bucket":         {Kind: S3, Address: "https://s3.example.org", Folder: "/", User: "id", Secret: "key"},
		"upwards":           {Kind: USB, Label: "BACKUP", Folder: "a/../../etc"},
		"an option of ssh":  {Kind: SFTP, Address: "-oProxyCommand=x", User: "u", Secret: "w"},
		"a user in the URL": {Kind: REST, Address: "https://u:p@other.example.org"},
		"a line break":      {Kind: SFTP, Address: "a", User: "u", Secret: "w\nx"},
		"a file":            {Kind: REST, Address: "file:///etc"},
		"a path as label":   {Kind: USB, Label: "../sda1"},
	} {
		if err := CheckTarget(bad); err == nil {
			t.Errorf("%s is let through", name)
		}
	}
}
