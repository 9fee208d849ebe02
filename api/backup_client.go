package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Backup asks how the backup does.
func (c *Client) Backup(ctx context.Context) (BackupStatus, error) {
	return get[BackupStatus](ctx, c, "/v1/backup", nil)
}

// SetBackupTarget has a target tried, and backups made there from now on.
func (c *Client) SetBackupTarget(ctx context.Context, t BackupTarget) (s BackupSheet, err error) {
	b, err := json.Marshal(t)
	if err != nil {
		return s, err
	}
	answer, err := c.do(ctx, http.MethodPut, "/v1/backup/target", nil, io.NopCloser(bytes.NewReader(b)))
	if err != nil {
		return s, err
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(io.LimitReader(answer.Body, longestAnswer)).Decode(&s); err != nil {
		return s, fmt.Errorf("cannot understand the box's answer to a new target: %w", err)
	}
	return s, nil
}

// RemoveBackupTarget ends backups. What is at the target stays there.
func (c *Client) RemoveBackupTarget(ctx context.Context) error {
	return c.send(ctx, http.MethodDelete, "/v1/backup/target", nil)
}

// BackupPrinted says that the sheet with the key is on paper.
func (c *Client) BackupPrinted(ctx context.Context) error {
	return c.send(ctx, http.MethodPost, "/v1/backup/printed", nil)
}

// BackupSheet asks for the sheet with the key.
func (c *Client) BackupSheet(ctx context.Context) (BackupSheet, error) {
	return get[BackupSheet](ctx, c, "/v1/backup/sheet", nil)
}

// BackupSnapshots asks for the backups at the target, the newest first.
func (c *Client) BackupSnapshots(ctx context.Context) ([]BackupSnapshot, error) {
	return get[[]BackupSnapshot](ctx, c, "/v1/backup/snapshots", nil)
}

// BackupNow begins a backup; Backup tells how it goes.
func (c *Client) BackupNow(ctx context.Context) error {
	return c.send(ctx, http.MethodPost, "/v1/backup/now", nil)
}

// BackupProve begins a proof; Backup tells how it goes.
func (c *Client) BackupProve(ctx context.Context) error {
	return c.send(ctx, http.MethodPost, "/v1/backup/prove", nil)
}

// RestoreBackup begins to replace all that the box has by a backup; Backup tells how it goes, and the box restarts.
func (c *Client) RestoreBackup(ctx context.Context, r BackupRestoreRequest) error {
	return c.send(ctx, http.MethodPost, "/v1/backup/restore", r)
}

// Export writes all of the organisation's data in open formats to w, as a tar file. One that lacks its end is not whole.
func (c *Client) Export(ctx context.Context, w io.Writer) error {
	answer, err := c.do(ctx, http.MethodGet, "/v1/export", nil, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(w, answer.Body); err != nil {
		return fmt.Errorf("cannot read the whole export: %w", err)
	}
	return nil
}
