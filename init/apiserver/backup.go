package apiserver

import (
	"context"
	"io"
	"net/http"

	"allotment/api"
)

// Backups is what a box knows of its backups. Its methods are as those of Box.
type Backups interface {
	Backup() api.BackupStatus
	// SetBackupTarget tries the target, and backs up there from now on.
	SetBackupTarget(ctx context.Context, t api.BackupTarget) (api.BackupSheet, error)
	RemoveBackupTarget() error
	// BackupPrinted notes that the sheet is on paper.
	BackupPrinted() error
	// BackupSheet returns the sheet until BackupPrinted; to the owner always.
	BackupSheet(owner bool) (api.BackupSheet, error)
	BackupSnapshots(ctx context.Context) ([]api.BackupSnapshot, error)
	// BackupNow begins to save, and BackupProve to prove, what Backup tells of.
	BackupNow() error
	BackupProve() error
	// RestoreBackup begins to replace all that the box has; it restarts in the course of it.
	RestoreBackup(ctx context.Context, r api.BackupRestoreRequest) error
	// Export writes all data in open formats as a tar file.
	Export(ctx context.Context, w io.Writer) error
}

func (s *Server) backupHandlers() map[string]handler {
	box := s.config.Box
	return map[string]handler{
		"GET /v1/backup":           func(w http.ResponseWriter, _ *http.Request) error { return answer(w, box.Backup()) },
		"PUT /v1/backup/target":    s.setBackupTarget,
		"DELETE /v1/backup/target": func(w http.ResponseWriter, _ *http.Request) error { return done(w, box.RemoveBackupTarget()) },
		"POST /v1/backup/printed":  func(w http.ResponseWriter, _ *http.Request) error { return done(w, box.BackupPrinted()) },
		"GET /v1/backup/sheet":     s.backupSheet,
		"GET /v1/backup/snapshots": s.backupSnapshots,
		"POST /v1/backup/now":      func(w http.ResponseWriter, _ *http.Request) error { return done(w, box.BackupNow()) },
		"POST /v1/backup/prove":    func(w http.ResponseWriter, _ *http.Request) error { return done(w, box.BackupProve()) },
		"POST /v1/backup/restore":  s.restoreBackup,
		"GET /v1/export":           s.export,
	}
}

func (s *Server) setBackupTarget(w http.ResponseWriter, r *http.Request) error {
	t, err := read[api.BackupTarget](r)
	if err != nil {
		return err
	}
	sheet, err := s.config.Box.SetBackupTarget(r.Context(), t)
	if err != nil {
		return err
	}
	return answer(w, sheet)
}

func (s *Server) backupSheet(w http.ResponseWriter, r *http.Request) error {
	class, _ := r.Context().Value(accessKey{}).(api.Access)
	sheet, err := s.config.Box.BackupSheet(class >= api.Owner)
	if err != nil {
		return err
	}
	return answer(w, sheet)
}

func (s *Server) backupSnapshots(w http.ResponseWriter, r *http.Request) error {
	all, err := s.config.Box.BackupSnapshots(r.Context())
	if err != nil {
		return err
	}
	return answer(w, all)
}

func (s *Server) restoreBackup(w http.ResponseWriter, r *http.Request) error {
	v, err := read[api.BackupRestoreRequest](r)
	if err != nil {
		return err
	}
	return done(w, s.config.Box.RestoreBackup(r.Context(), v))
}

func (s *Server) export(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "application/x-tar")
	return s.config.Box.Export(r.Context(), w)
}
