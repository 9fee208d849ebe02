package boxtest

import (
	"context"
	"io"

	"allotment/api"
)

// BackupKey is on every sheet of this box.
const BackupKey = "0000-0000-0000-0000-0000-0000-0000-0000-0000"

// Backup implements apiserver.Box.
func (b *Box) Backup() api.BackupStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Saved
}

// SetBackupTarget implements apiserver.Box; it refuses what has no kind.
func (b *Box) SetBackupTarget(_ context.Context, t api.BackupTarget) (api.BackupSheet, error) {
	if t.Kind == "" {
		return api.BackupSheet{}, api.Errorf(api.Invalid, "a backup cannot go to \"\"")
	}
	b.note("backup to %s", t.Kind)
	b.mu.Lock()
	defer b.mu.Unlock()
	t.Secret = ""
	b.Saved.Target, b.Saved.State, b.Saved.KeySheet = &t, api.BackupIdle, true
	return api.BackupSheet{Key: BackupKey, Target: t, New: true}, nil
}

// RemoveBackupTarget implements apiserver.Box.
func (b *Box) RemoveBackupTarget() error {
	b.note("backup nowhere")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Saved = api.BackupStatus{State: api.BackupOff}
	return nil
}

// BackupPrinted implements apiserver.Box.
func (b *Box) BackupPrinted() error {
	b.note("backup printed")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Saved.KeySheet = false
	return nil
}

// BackupSheet implements apiserver.Box.
func (b *Box) BackupSheet(owner bool) (api.BackupSheet, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Saved.Target == nil || !owner && !b.Saved.KeySheet {
		return api.BackupSheet{}, api.Errorf(api.Conflict, "the sheet was printed")
	}
	return api.BackupSheet{Key: BackupKey, Target: *b.Saved.Target}, nil
}

// BackupSnapshots implements apiserver.Box.
func (b *Box) BackupSnapshots(context.Context) ([]api.BackupSnapshot, error) { return b.Snapshots, nil }

// BackupNow implements apiserver.Box.
func (b *Box) BackupNow() error {
	b.note("backup now")
	return nil
}

// BackupProve implements apiserver.Box.
func (b *Box) BackupProve() error {
	b.note("backup prove")
	return nil
}

// RestoreBackup implements apiserver.Box; it wants the key of its sheets.
func (b *Box) RestoreBackup(_ context.Context, r api.BackupRestoreRequest) error {
	if r.Key != BackupKey {
		return api.Errorf(api.Invalid, "this is no backup key")
	}
	b.note("restore %s %t", r.Target.Kind, r.Confirm)
	return nil
}

// Export implements apiserver.Box; it writes no tar file.
func (b *Box) Export(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "everything\n")
	return err
}
