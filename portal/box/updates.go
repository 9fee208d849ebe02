package box

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"allotment/api"
	"allotment/portal/web"
)

// updateText says in a sentence what the box does to stay up to date; or else says has the box's own sentence.
func updateText(r *web.Request, u api.Update) (text, says string) {
	if u.Policy.Paused != nil && *u.Policy.Paused {
		return r.T("box.updates.paused", "version", u.Running), ""
	}
	if u.Offered != "" && (u.State == "idle" || u.State == "waiting" || u.State == "fetching" || u.State == "ready") {
		text = r.T("box.updates.offered."+u.State, "version", u.Running, "offered", u.Offered)
		if u.State == "ready" && !u.Due.IsZero() {
			text += " " + r.T("box.updates.planned", "due", r.Moment(u.Due))
		}
		return text, ""
	}
	if u.State == "idle" && u.Text != "" { // which says why there is nothing to do
		return "", u.Text
	}
	if text = r.Or("box.updates.state."+u.State, ""); text == "" {
		says = u.Text
	}
	return text, says
}

// updatesView is what the page of updates shows.
type updatesView struct {
	api.Update
	Text     string
	Says     string // or else what the box says
	Paused   bool
	Deferred bool
	From, To string
	Source   string // a disk or a mirror; empty: the publisher
	Percent  int    // of what is to be had
	History  []api.UpdateAttempt
	Nights   []web.Option // how long updates can be put off
}

func (p *Pages) updates(r *web.Request) error {
	v, err := p.updatesView(r)
	if err != nil {
		return err
	}
	if slices.Contains([]string{"checking", "fetching", "restarting", "trial"}, v.State) {
		r.W.Header().Set("Refresh", "10")
	}
	r.Form.Set("from", v.From)
	r.Form.Set("to", v.To)
	r.Form.Set("source", v.Source)
	return r.Render("updates", v)
}

func (p *Pages) updatesView(r *web.Request) (updatesView, error) {
	u, err := r.Box.Update(ctx(r))
	if err != nil {
		return updatesView{}, problem(err)
	}
	history, err := r.Box.UpdateHistory(ctx(r))
	if err != nil {
		return updatesView{}, problem(err)
	}
	v := updatesView{Update: u, History: history}
	v.Text, v.Says = updateText(r, u)
	v.Paused = u.Policy.Paused != nil && *u.Policy.Paused
	v.Deferred = u.Policy.DeferUntil != nil && u.Policy.DeferUntil.After(r.Now)
	if u.Policy.From != nil && u.Policy.To != nil {
		v.From, v.To = *u.Policy.From, *u.Policy.To
	}
	if u.Policy.Source != nil {
		v.Source = *u.Policy.Source
	}
	if u.Total > 0 {
		v.Percent = int(100 * u.Done / u.Total)
	}
	for _, days := range deferrals {
		v.Nights = append(v.Nights, web.Option{Value: strconv.Itoa(days), Label: r.T("box.updates.days", "n", days)})
	}
	return v, nil
}

// deferrals are for how many days updates can be put off.
var deferrals = []int{1, 3, 7, 14}

func (p *Pages) letter(r *web.Request) error {
	n, err := strconv.Atoi(r.Path("number"))
	if err != nil {
		return web.ErrNotFound
	}
	history, err := r.Box.UpdateHistory(ctx(r))
	if err != nil {
		return problem(err)
	}
	i := slices.IndexFunc(history, func(a api.UpdateAttempt) bool { return a.Number == n })
	if i < 0 {
		return web.ErrNotFound
	}
	return r.Render("letter", history[i])
}

func (p *Pages) checkUpdate(r *web.Request) error {
	if err := r.Box.CheckUpdate(ctx(r)); err != nil {
		return problem(err)
	}
	r.Record("box.update-check", "", nil)
	return r.Done(root+"updates", "box.updates.checking")
}

func (p *Pages) updateNow(r *web.Request) error {
	if err := r.Box.UpdateNow(ctx(r)); err != nil {
		return problem(err)
	}
	r.Record("box.update-now", "", nil)
	return r.Done(root+"updates", "box.updates.soon")
}

// clockTime is a time of day.
var clockTime = regexp.MustCompile(`^([01][0-9]|2[0-3]):[0-5][0-9]$`)

func (p *Pages) updatePolicy(r *web.Request) error {
	var change api.UpdatePolicy
	var kind, key string
	yes, no := true, false
	switch r.Form.Choice("what", "pause", "resume", "defer", "window", "source") {
	case "pause":
		change.Paused, kind, key = &yes, "box.update-paused", "box.updates.done.paused"
	case "resume":
		at := time.Time{}
		change.Paused, change.DeferUntil, kind, key = &no, &at, "box.update-resumed", "box.updates.done.resumed"
	case "defer":
		days := r.Form.Number("days", 1, slices.Max(deferrals))
		at := r.Now.AddDate(0, 0, days)
		change.DeferUntil, kind, key = &at, "box.update-deferred", "box.updates.done.deferred"
	case "window":
		from, to := r.Form.Required("from", web.Line), r.Form.Required("to", web.Line)
		for field, text := range map[string]string{"from": from, "to": to} {
			if r.Form.Error(field) == "" && !clockTime.MatchString(text) {
				r.Form.Fail(field, "box.updates.time")
			}
		}
		change.From, change.To, kind, key = &from, &to, "box.update-window", "box.updates.done.window"
	case "source":
		source := r.Form.Text("source", web.Line)
		change.Source, kind, key = &source, "box.update-source", "box.updates.done.source"
	}
	if !r.Form.OK() {
		v, err := p.updatesView(r)
		if err != nil {
			return err
		}
		return r.Render("updates", v)
	}
	if err := r.Box.SetUpdatePolicy(ctx(r), change); err != nil {
		return problem(err)
	}
	r.Record(kind, "", nil)
	return r.Done(root+"updates", key)
}

// backView is what going back would lose.
type backView struct {
	api.GoBack
	Losses []lossView
}

type lossView struct {
	api.Loss
	Title string // of the module
}

func (p *Pages) goingBack(r *web.Request) error {
	v, err := p.backView(r)
	if err != nil {
		return err
	}
	return r.Render("back", v)
}

func (p *Pages) backView(r *web.Request) (backView, error) {
	b, err := r.Box.GoBack(ctx(r), false)
	if err != nil {
		return backView{}, problem(err)
	}
	v := backView{GoBack: b}
	for _, l := range b.Losses {
		v.Losses = append(v.Losses, lossView{l, r.ModuleTitle(l.Module, l.Module)})
	}
	return v, nil
}

func (p *Pages) goBack(r *web.Request) error {
	v, err := p.backView(r)
	if err != nil {
		return err
	}
	if !confirmed(r, string(v.To)) {
		r.Form.Fail("confirm", "box.confirm.wrong", "word", v.To)
		return r.Render("back", v)
	}
	r.Record("box.update-back", string(v.GoBack.To), nil)
	if _, err := r.Box.GoBack(ctx(r), true); err != nil {
		return problem(err)
	}
	r.Status = http.StatusAccepted
	return r.Render("wait", waitView{Title: r.T("box.updates.goesback"), Text: r.T("box.wait.minutes")})
}

// confirmed tells whether the visitor typed the word that she was asked for.
func confirmed(r *web.Request, word string) bool {
	return strings.EqualFold(strings.TrimSpace(r.Form.Value("confirm")), word)
}

// waitView is what a page says while the machine is away.
type waitView struct{ Title, Text string }
