package box

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"allotment/api"
	"allotment/portal/web"
)

// Kinds of places for backups.
const (
	s3     = "s3"
	sftp   = "sftp"
	friend = "box"
	rest   = "rest"
	usb    = "usb"
)

// backupLamp tells whether there are backups, and whether they can be restored.
func (p *Pages) backupLamp(r *web.Request) lamp {
	l := lamp{Title: r.T("box.lamp.backup"), Path: root + "backup", Do: r.T("box.lamp.look")}
	b, err := r.Box.Backup(ctx(r))
	if err != nil {
		l.Class, l.Text = "bad", r.T("box.lamp.unknown")
		return l
	}
	l.Class, l.Text = class(b.Lamp.Level), backupText(r, b)
	switch {
	case b.State == api.BackupOff:
		l.Class, l.Do = "bad", r.T("box.lamp.backup.do")
	case l.Class == "good":
		l.Do = ""
	}
	return l
}

// backupText says in a sentence how the backup does.
func backupText(r *web.Request, b api.BackupStatus) string {
	switch {
	case b.State == api.BackupOff:
		return r.T("box.backup.text.off")
	case b.State != api.BackupIdle:
		return r.T("box.backup.text." + string(b.State))
	case b.Good == nil && b.Last != nil:
		return r.T("box.backup.text.never")
	case b.Good == nil:
		return r.T("box.backup.text.first")
	case b.Last != nil && !b.Last.OK:
		return r.T("box.backup.text.failed", "date", r.Moment(b.Good.Time))
	case b.Proven.IsZero():
		return r.T("box.backup.text.unproven", "date", r.Moment(b.Good.Time))
	}
	return r.T("box.backup.text.good", "date", r.Moment(b.Good.Time), "proven", r.Moment(b.Proven))
}

// backupView is what the page of backups shows.
type backupView struct {
	api.BackupStatus
	Text     string
	Class    string
	Percent  int
	Kinds    []web.Option
	Kind     string // that the form is for; empty: to be chosen
	Proofs   []proofView
	Restored []proofView // parts of the last full restore that have come to an end
}

// proofView is a module's part of a receipt.
type proofView struct {
	api.BackupModuleProof
	Title string
}

func (p *Pages) backup(r *web.Request) error {
	kind := r.Query("kind")
	if kind == usb {
		r.Form.Set("folder", "allotment")
	}
	return p.showBackup(r, kind)
}

// placeKinds are the kinds of places in the order of the page.
func placeKinds(r *web.Request) []web.Option {
	var all []web.Option
	for _, kind := range []string{s3, sftp, friend, rest, usb} {
		all = append(all, web.Option{Value: kind, Label: r.T("box.backup.kind." + kind)})
	}
	return all
}

func (p *Pages) showBackup(r *web.Request, kind string) error {
	b, err := r.Box.Backup(ctx(r))
	if err != nil {
		return problem(err)
	}
	v := backupView{BackupStatus: b, Text: backupText(r, b), Class: class(b.Lamp.Level), Kinds: placeKinds(r)}
	for _, o := range v.Kinds {
		if o.Value == kind {
			v.Kind = kind
		}
	}
	if b.State == api.BackupOff {
		v.Class = "bad"
	}
	if b.Total > 0 {
		v.Percent = int(100 * b.Done / b.Total)
	}
	if b.Proof != nil {
		for _, m := range b.Proof.Modules {
			v.Proofs = append(v.Proofs, proofView{m, r.ModuleTitle(m.Module, m.Module)})
		}
	}
	if b.Restore != nil {
		for _, m := range b.Restore.Modules {
			v.Restored = append(v.Restored, proofView{m, r.ModuleTitle(m.Module, m.Module)})
		}
	}
	if b.State != api.BackupOff && b.State != api.BackupIdle && v.Kind == "" {
		r.W.Header().Set("Refresh", "5")
	}
	return r.Render("backup", v)
}

// ReadTarget reads the fields of a place for backups of a kind; errors are in the form.
func ReadTarget(f *web.Form, kind string) api.BackupTarget {
	t := api.BackupTarget{Kind: kind}
	switch kind {
	case s3:
		t.Address, t.Folder = f.Required("address", web.Line), f.Required("folder", web.Line)
		t.User, t.Secret = f.Required("user", web.Line), f.Secret("secret")
	case sftp:
		t.Address, t.Folder = f.Required("address", web.Line), f.Required("folder", web.Line)
		t.User, t.Secret = f.Required("user", web.Line), f.Secret("secret")
		t.HostKey = f.Text("hostkey", web.Area)
	case rest:
		t.Address, t.User = f.Required("address", web.Line), f.Text("user", web.Line)
		t.Secret = f.Value("secret")
	case friend:
		t.Address, t.User = f.Required("address", web.Line), f.Required("user", web.Line)
		t.Secret, t.HostKey = f.Secret("secret"), f.Text("fingerprint", web.Line)
	case usb:
		t.Label, t.Folder = f.Required("label", web.Line), f.Text("folder", web.Line)
	default:
		f.Fail("kind", "form.choice")
	}
	if address := t.Address; (kind == s3 || kind == rest || kind == friend) && address != "" && !strings.HasPrefix(address, "https://") &&
		!strings.HasPrefix(address, "http://") {
		t.Address = "https://" + address
	}
	return t
}

func (p *Pages) setTarget(r *web.Request) error {
	kind := r.Form.Value("kind")
	t := ReadTarget(r.Form, kind)
	if !r.Form.OK() {
		return p.showBackup(r, kind)
	}
	to := root + "backup/sheet"
	if next := r.To(""); next != "" {
		to += "?to=" + next
	}
	about := About{Key: "backup target", Title: r.T("box.backup.trying"), Back: to}
	done, err := p.Do(r, about, func(ctx context.Context, _ func(api.Progress)) error {
		_, err := p.deps.Box.SetBackupTarget(ctx, t)
		return err
	})
	if !done {
		return err
	}
	var e *api.Error
	if errors.As(err, &e) {
		r.Form.Fail("", "box.backup.refused", "text", web.Said(e.Error()))
		return p.showBackup(r, kind)
	}
	if err != nil {
		return problem(err)
	}
	r.Record("box.backup-target", cmp.Or(t.Address, t.Label), nil)
	return r.Redirect(to)
}

// sheetView is the sheet that an officer prints.
type sheetView struct {
	api.BackupSheet
	Date time.Time
	To   string // where to go on
}

func (p *Pages) sheet(r *web.Request) error {
	s, err := r.Box.BackupSheet(ctx(r))
	if err != nil {
		return problem(err)
	}
	return r.Render("sheet", sheetView{s, r.Now, r.To(root + "backup")})
}

func (p *Pages) printed(r *web.Request) error {
	if !r.Form.Checked("sure") {
		r.Form.Fail("sure", "box.backup.printfirst")
		return p.sheet(r)
	}
	if err := r.Box.BackupPrinted(ctx(r)); err != nil {
		return problem(err)
	}
	r.Record("box.backup-printed", "", nil)
	return r.Done(r.To(root+"backup"), "box.backup.kept")
}

func (p *Pages) removeTarget(r *web.Request) error {
	if !r.Form.Checked("sure") {
		r.Form.Fail("sure", "box.backup.removesure")
		return p.showBackup(r, "")
	}
	if err := r.Box.RemoveBackupTarget(ctx(r)); err != nil {
		return problem(err)
	}
	r.Record("box.backup-removed", "", nil)
	return r.Done(root+"backup", "box.backup.stopped")
}

func (p *Pages) backupNow(r *web.Request) error {
	if err := r.Box.BackupNow(ctx(r)); err != nil {
		return problem(err)
	}
	r.Record("box.backup-now", "", nil)
	return r.Done(root+"backup", "box.backup.begun")
}

func (p *Pages) prove(r *web.Request) error {
	if err := r.Box.BackupProve(ctx(r)); err != nil {
		return problem(err)
	}
	r.Record("box.backup-prove", "", nil)
	return r.Done(root+"backup", "box.backup.proving")
}

// restoreView is what the page of restoring shows.
type restoreView struct {
	Action    string // path of the page
	Back      string // path of the page before
	Kind      string
	Kinds     []web.Option
	Snapshots []api.BackupSnapshot // of the box's own place
	Word      string               // that is to be typed
}

func (p *Pages) restoring(r *web.Request) error { return p.showRestore(r, r.Query("kind")) }

// admitted leads away who may not restore during the first run.
func (p *Pages) admitted(r *web.Request) (bool, error) {
	if r.Unclaimed != nil && r.Unclaimed() && p.Admitted != nil && p.Admitted(r) {
		return true, nil
	}
	return false, r.Redirect("/portal/first/")
}

func (p *Pages) firstRestoring(r *web.Request) error {
	if ok, err := p.admitted(r); !ok {
		return err
	}
	return p.restoring(r)
}

func (p *Pages) firstRestore(r *web.Request) error {
	if ok, err := p.admitted(r); !ok {
		return err
	}
	return p.restore(r)
}

func (p *Pages) showRestore(r *web.Request, kind string) error {
	v := restoreView{Kinds: placeKinds(r), Word: r.T("box.backup.restore.word"), Action: root + "backup/restore", Back: root + "backup"}
	if r.HTTP.URL.Path == firstPath {
		v.Action, v.Back = firstPath, "/portal/first/"
	}
	for _, o := range v.Kinds {
		if o.Value == kind {
			v.Kind = kind
		}
	}
	if all, err := r.Box.BackupSnapshots(ctx(r)); err == nil { // without a place there are none
		v.Snapshots = all
	}
	return r.Render("restore", v)
}

func (p *Pages) restore(r *web.Request) error {
	kind := r.Form.Value("kind")
	req := api.BackupRestoreRequest{Target: ReadTarget(r.Form, kind), Key: r.Form.Required("key", web.Area),
		Snapshot: r.Form.Text("snapshot", web.Line), Confirm: true}
	if word := r.T("box.backup.restore.word"); !confirmed(r, word) {
		r.Form.Fail("confirm", "box.confirm.wrong", "word", word)
	}
	if !r.Form.OK() {
		return p.showRestore(r, kind)
	}
	r.Record("box.backup-restore", cmp.Or(req.Target.Address, req.Target.Label), nil)
	if err := r.Box.RestoreBackup(ctx(r), req); err != nil {
		var e *api.Error
		if errors.As(err, &e) {
			r.Form.Fail("", "box.backup.refused", "text", web.Said(e.Error()))
			return p.showRestore(r, kind)
		}
		return problem(err)
	}
	r.Status = http.StatusAccepted
	return r.Render("wait", waitView{Title: r.T("box.backup.restore.begun"), Text: r.T("box.wait.restore")})
}

// export gives all of the organisation's data in open formats. A file that lacks its end is not whole, which tar tells.
func (p *Pages) export(r *web.Request) error {
	r.Record("box.export", "", nil)
	h := r.W.Header()
	h.Set("Content-Type", "application/x-tar")
	h.Set("Content-Disposition", `attachment; filename="`+r.Now.Format(time.DateOnly)+`-export.tar"`)
	w := &counted{ResponseWriter: r.W}
	err := r.Box.Export(ctx(r), w)
	if err != nil && w.begun {
		panic(http.ErrAbortHandler) // the only way to tell the browser that the file is not whole
	}
	if err != nil {
		h.Del("Content-Disposition")
	}
	return problem(err)
}

// counted notes whether anything was written.
type counted struct {
	http.ResponseWriter
	begun bool
}

// Write implements io.Writer.
func (c *counted) Write(p []byte) (int, error) {
	c.begun = true
	return c.ResponseWriter.Write(p)
}
